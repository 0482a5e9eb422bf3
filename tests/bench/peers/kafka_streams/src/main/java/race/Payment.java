package race;

import com.fasterxml.jackson.annotation.JsonProperty;

/** One payment as it stands in the source topic. */
record Payment(
    @JsonProperty("transaction_id") String transactionId,
    @JsonProperty("user_id") String userId,
    double amount,
    String currency,
    @JsonProperty("event_time") long eventTime,
    @JsonProperty("merchant_id") String merchantId,
    String country,
    @JsonProperty("device_id") String deviceId) {

  long cents() {
    return Math.round(amount * 100);
  }
}
