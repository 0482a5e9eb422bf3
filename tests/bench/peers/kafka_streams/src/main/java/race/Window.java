package race;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * One user's payments of the last 30 days, oldest first, as they lie in the store: five longs each (event time, cents, a
 * 64-bit hash of merchant, country and device; 0 where missing).
 */
final class Window {
  private static final int LONGS = 5;
  private static final long MINUTE = 60_000L;
  private static final long HOUR = 60 * MINUTE;
  private static final long DAY = 24 * HOUR;
  private static final long HORIZON = 30 * DAY;

  private final long[] kept;
  private final int size;

  private Window(long[] kept, int size) {
    this.kept = kept;
    this.size = size;
  }

  /** Return the stored window (null for a new user) with one more payment, without those that have left it. */
  static Window with(byte[] stored, Payment payment) {
    ByteBuffer buffer = ByteBuffer.wrap(stored == null ? new byte[0] : stored);
    int before = buffer.remaining() / (8 * LONGS);
    int first = 0;
    while (first < before && buffer.getLong(8 * LONGS * first) <= payment.eventTime() - HORIZON) {
      first++;
    }
    int size = before - first + 1;
    long[] kept = new long[LONGS * size];
    buffer.position(8 * LONGS * first);
    buffer.asLongBuffer().get(kept, 0, LONGS * (size - 1));
    int at = LONGS * (size - 1);
    kept[at] = payment.eventTime();
    kept[at + 1] = payment.cents();
    kept[at + 2] = hash(payment.merchantId());
    kept[at + 3] = hash(payment.country());
    kept[at + 4] = hash(payment.deviceId());
    return new Window(kept, size);
  }

  byte[] bytes() {
    ByteBuffer buffer = ByteBuffer.allocate(8 * kept.length);
    buffer.asLongBuffer().put(kept);
    return buffer.array();
  }

  /** Return the 24 features of the newest payment, in the order of the feature set. */
  float[] features() {
    int last = size - 1;
    long now = time(last);
    long amount = cents(last);
    int m5 = after(now - 5 * MINUTE);
    int h1 = after(now - HOUR);
    int d1 = after(now - DAY);
    int d7 = after(now - 7 * DAY);
    long[] sums = new long[size + 1]; // from a place on
    long squares = 0;
    for (int i = last; i >= 0; i--) {
      sums[i] = sums[i + 1] + cents(i);
      squares += cents(i) * cents(i);
    }
    long total = sums[0];
    return new float[] {
      amount,
      size - m5,
      size - h1,
      size - d1,
      size - d7,
      size,
      sums[h1],
      sums[d1],
      (float) ((double) sums[d1] / (size - d1)),
      (float) ((double) sums[d7] / (size - d7)),
      (float) ((double) total / size),
      (float) (Math.sqrt((double) (size * squares - total * total)) / size),
      sums[d7] == 0 ? Float.NaN : (float) ((double) (amount * (size - d7)) / sums[d7]),
      total == 0 ? Float.NaN : (float) ((double) (amount * size) / total),
      distinct(2, h1),
      distinct(2, d1),
      distinct(2, d7),
      distinct(3, h1),
      distinct(3, d1),
      distinct(4, d1),
      firstSeen(2),
      firstSeen(3),
      firstSeen(4),
      size == 1 ? Float.NaN : (float) ((now - time(last - 1)) / 1000.0),
    };
  }

  private long time(int i) {
    return kept[LONGS * i];
  }

  private long cents(int i) {
    return kept[LONGS * i + 1];
  }

  /** Return the first place whose time is later. */
  private int after(long time) {
    int i = size - 1;
    while (i > 0 && time(i - 1) > time) {
      i--;
    }
    return i;
  }

  private float distinct(int field, int first) {
    long[] values = new long[size - first];
    for (int i = first; i < size; i++) {
      values[i - first] = kept[LONGS * i + field];
    }
    Arrays.sort(values);
    int count = 0;
    for (int i = 0; i < values.length; i++) {
      if (values[i] != 0 && (i == 0 || values[i] != values[i - 1])) {
        count++;
      }
    }
    return count;
  }

  private float firstSeen(int field) {
    long own = kept[LONGS * (size - 1) + field];
    if (own == 0) {
      return Float.NaN;
    }
    for (int i = 0; i < size - 1; i++) {
      if (kept[LONGS * i + field] == own) {
        return 0f;
      }
    }
    return 1f;
  }

  /** FNV-1a with a finaliser, so that ids that differ in one letter differ everywhere. */
  private static long hash(String text) {
    if (text == null) {
      return 0;
    }
    long hash = 0xcbf29ce484222325L;
    for (byte one : text.getBytes(StandardCharsets.UTF_8)) {
      hash = (hash ^ (one & 0xff)) * 0x100000001b3L;
    }
    hash = (hash ^ (hash >>> 32)) * 0x9e3779b97f4a7c15L;
    return hash == 0 ? 1 : hash;
  }
}
