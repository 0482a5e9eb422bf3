package race;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.File;
import java.io.IOException;
import java.nio.FloatBuffer;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** The ensemble's graph in ONNX Runtime, one thread a call, and the decisions made of its scores. */
final class Model {
  static final int FEATURES = 24;

  /** A decision as it is written. */
  record Decision(
      String transaction_id,
      String user_id,
      String decision,
      float score,
      String model,
      String engine,
      String feature_set,
      List<String> reasons,
      List<String> flags,
      String segment,
      long event_time,
      long scored_at) {}

  private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
  private final OrtSession session;
  private final ObjectWriter writer = new ObjectMapper().writerFor(Decision.class);
  private final String version;
  private final String features;
  private final float review;
  private final float decline;

  Model(String bundle, String graph) throws OrtException, IOException {
    OrtSession.SessionOptions options = new OrtSession.SessionOptions();
    options.setIntraOpNumThreads(1);
    options.setInterOpNumThreads(1);
    session = environment.createSession(graph, options);
    JsonNode manifest = new ObjectMapper().readTree(new File(bundle, "manifest.json"));
    version = manifest.get("version").asText();
    features = manifest.get("feature_set_hash").asText();
    review = (float) manifest.get("thresholds").get("review").asDouble();
    decline = (float) manifest.get("thresholds").get("decline").asDouble();
  }

  float[] score(List<float[]> rows) {
    FloatBuffer flat = FloatBuffer.allocate(rows.size() * FEATURES);
    rows.forEach(flat::put);
    flat.flip();
    long[] shape = {rows.size(), FEATURES};
    try (OnnxTensor x = OnnxTensor.createTensor(environment, flat, shape);
        OrtSession.Result result = session.run(Map.of("x", x), Set.of("score"))) {
      return (float[]) result.get(0).getValue();
    } catch (OrtException error) {
      throw new IllegalStateException(error);
    }
  }

  byte[] decision(Payment payment, float score) {
    String word = score < review ? "approve" : score < decline ? "review" : "decline";
    try {
      return writer.writeValueAsBytes(
          new Decision(
              payment.transactionId(),
              payment.userId(),
              word,
              score,
              version,
              "onnx",
              features,
              List.of(),
              List.of(),
              payment.country(),
              payment.eventTime(),
              System.currentTimeMillis()));
    } catch (JsonProcessingException error) {
      throw new IllegalStateException(error);
    }
  }
}
