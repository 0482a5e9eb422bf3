"""PyFlink's best form: one SQL OVER window of 30 days whose arrays a pandas function turns into scores, many at once.

    python flink_over.py JOB JARS     in an environment that holds requirements/flink.txt

An OVER window in event time decides a payment once the watermark has passed it, that is once every partition has shown
a later one: the race closes each part with one more record a partition. Exactly once, checkpoints once a second.
"""

import json
import sys
from pathlib import Path

import pandas as pd
from pyflink.table import DataTypes, EnvironmentSettings, TableEnvironment
from pyflink.table.udf import udf

from flink_keyed import configured
from listed_windows import expired, features
from native_model import Model

SOURCE = """
CREATE TABLE payments (
  transaction_id STRING, user_id STRING, amount DOUBLE, event_time BIGINT,
  merchant_id STRING, country STRING, device_id STRING,
  paid_at AS TO_TIMESTAMP_LTZ(event_time, 3),
  WATERMARK FOR paid_at AS paid_at
) WITH (
  'connector' = 'kafka', 'topic' = '{source}', 'properties.bootstrap.servers' = '{bootstrap}',
  'properties.group.id' = '{group}', 'scan.startup.mode' = 'earliest-offset', 'format' = 'json'
)
"""
SINK = """
CREATE TABLE decisions (
  transaction_id STRING, user_id STRING, decision STRING, score FLOAT, model STRING, engine STRING,
  feature_set STRING, segment STRING, event_time BIGINT
) WITH (
  'connector' = 'kafka', 'topic' = '{decisions}', 'properties.bootstrap.servers' = '{bootstrap}',
  'key.format' = 'raw', 'key.fields' = 'user_id', 'value.format' = 'json',
  'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = '{group}',
  'properties.transaction.timeout.ms' = '600000'
)
"""
DECIDE = """
INSERT INTO decisions
SELECT transaction_id, user_id,
  CASE WHEN score < {review} THEN 'approve' WHEN score < {decline} THEN 'review' ELSE 'decline' END,
  score, '{version}', 'libraries', '{features}', country, event_time
FROM (
  SELECT transaction_id, user_id, country, event_time,
    score_of(times, amounts, merchants, countries, devices) AS score
  FROM (
    SELECT transaction_id, user_id, country, event_time,
      ARRAY_AGG(event_time) OVER w AS times,
      ARRAY_AGG(CAST(ROUND(amount * 100) AS BIGINT)) OVER w AS amounts,
      ARRAY_AGG(merchant_id) OVER w AS merchants,
      ARRAY_AGG(country) OVER w AS countries,
      ARRAY_AGG(COALESCE(device_id, '')) OVER w AS devices
    FROM payments
    WINDOW w AS (PARTITION BY user_id ORDER BY paid_at RANGE BETWEEN INTERVAL '30' DAY PRECEDING AND CURRENT ROW)
  )
)
"""


def scorer(bundle):
    """Return the function of columns; the model is read where it is called first."""
    models = {}

    @udf(result_type=DataTypes.FLOAT(), func_type="pandas")
    def score_of(times, amounts, merchants, countries, devices):
        if not models:
            models["one"] = Model(bundle)
        rows = []
        for own in zip(times, amounts, merchants, countries, devices, strict=True):
            at, cents, shops, lands, used = (list(column) for column in own)
            # SQL's range includes a payment that is exactly 30 days old; ours does not.
            first = expired(at)
            used = [one or None for one in used]
            columns = [list(map(int, at)), list(map(int, cents)), shops, lands, used]
            rows.append(features(*(column[first:] for column in columns)))
        return pd.Series(models["one"].score_rows(rows), dtype="float32")

    return score_of


def main():
    job, jars = json.loads(sys.argv[1]), sys.argv[2]
    settings = EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configured(job, jars)).build()
    table = TableEnvironment.create(settings)
    here = Path(__file__).parent
    for name in ("listed_windows.py", "native_model.py", "flink_keyed.py"):
        table.add_python_file(str(here / name))
    table.get_config().set("python.fn-execution.bundle.time", "100")
    model = Model(job["bundle"])
    named = {"review": model.review, "decline": model.decline, "version": model.version, "features": model.features}
    table.create_temporary_function("score_of", scorer(job["bundle"]))
    table.execute_sql(SOURCE.format(**job))
    table.execute_sql(SINK.format(**job))
    table.execute_sql(DECIDE.format(**named)).wait()


if __name__ == "__main__":
    main()
