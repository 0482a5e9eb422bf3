package race;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.Properties;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/**
 * java race.Race JOB MOST: up to MOST payments are scored at once, 1 for each by itself. Clients and store are then as they
 * come; with more, what is written is compressed by lz4 and lingers, the store is cached, and commits are one a second.
 */
public final class Race {
  private Race() {}

  public static void main(String[] arguments) throws Exception {
    JsonNode job = new ObjectMapper().readTree(arguments[0]);
    int most = Integer.parseInt(arguments[1]);
    Model model = new Model(job.get("bundle").asText(), job.get("graph").asText());
    StoreBuilder<KeyValueStore<String, byte[]>> store =
        Stores.keyValueStoreBuilder(
            Stores.persistentKeyValueStore(Decide.STORE), Serdes.String(), Serdes.ByteArray());
    Topology topology = new Topology();
    topology
        .addSource("payments", Serdes.String().deserializer(), Serdes.ByteArray().deserializer(), job.get("source").asText())
        .addProcessor("decide", () -> new Decide(model, most), "payments")
        .addStateStore(most > 1 ? store.withCachingEnabled() : store, "decide")
        .addSink("decisions", job.get("decisions").asText(), Serdes.String().serializer(), Serdes.ByteArray().serializer(), "decide");
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, job.get("group").asText());
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, job.get("bootstrap").asText());
    settings.put(StreamsConfig.STATE_DIR_CONFIG, job.get("folder").asText() + "/state");
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
    if (most > 1) {
      settings.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
      settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 50);
      settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
      settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 512L << 20);
      settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1_000);
    }
    KafkaStreams streams = new KafkaStreams(topology, settings);
    Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
    streams.start();
  }
}
