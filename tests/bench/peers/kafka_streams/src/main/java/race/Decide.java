package race;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Payments in, decisions out. State is read and written payment by payment; scores are made one by one, or by hand in
 * micro-batches: up to `most` payments, none older than BATCH_TIME. A batch in memory is not part of a commit, so that a
 * crash could lose it: the batched form is faster than one that may be used.
 */
final class Decide implements Processor<String, byte[], String, byte[]> {
  static final String STORE = "windows";
  private static final Duration BATCH_TIME = Duration.ofMillis(20);

  private final Model model;
  private final int most;
  private final ObjectReader reader = new ObjectMapper().readerFor(Payment.class);
  private final List<Payment> payments = new ArrayList<>();
  private final List<float[]> rows = new ArrayList<>();
  private ProcessorContext<String, byte[]> context;
  private KeyValueStore<String, byte[]> store;

  Decide(Model model, int most) {
    this.model = model;
    this.most = most;
  }

  @Override
  public void init(ProcessorContext<String, byte[]> own) {
    context = own;
    store = own.getStateStore(STORE);
    if (most > 1) {
      own.schedule(BATCH_TIME, PunctuationType.WALL_CLOCK_TIME, now -> decide());
    }
  }

  @Override
  public void process(Record<String, byte[]> record) {
    Payment payment;
    try {
      payment = reader.readValue(record.value());
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
    Window window = Window.with(store.get(record.key()), payment);
    store.put(record.key(), window.bytes());
    payments.add(payment);
    rows.add(window.features());
    if (rows.size() >= most) {
      decide();
    }
  }

  private void decide() {
    if (rows.isEmpty()) {
      return;
    }
    float[] scores = model.score(rows);
    for (int i = 0; i < scores.length; i++) {
      Payment payment = payments.get(i);
      byte[] decision = model.decision(payment, scores[i]);
      context.forward(new Record<>(payment.userId(), decision, payment.eventTime()));
    }
    payments.clear();
    rows.clear();
  }
}
