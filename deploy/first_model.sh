#!/bin/sh
# A first model to score with, trained on simulated cardholders in about a minute and promoted through the gates.
# Does nothing where the registry names a champion already. Settings come from the environment (FRAUDSTREAM_…).
set -eu

: "${FRAUDSTREAM_REGISTRY__DIRECTORY:?names the registry directory}"
work=${1:-/data}
if [ -e "$FRAUDSTREAM_REGISTRY__DIRECTORY/champion.json" ]; then
  echo "There is a champion already."
  exit 0
fi
cd "$work"
rm -rf history.parquet first first.holdout.parquet
fraudstream simulate -o history.parquet --events "${FIRST_MODEL_EVENTS:-60000}" --users 1666 --merchants 833 --fraud-rate 0.02
fraudstream train history.parquet -o first --holdout-days 4 --label-delay-days 0 --folds 2 --trials 0 --register
version=$(python -c 'from models.bundle import open_bundle; from pathlib import Path; print(open_bundle(Path("first")).version)')
# Four simulated days are too few to judge false positives by country and amount; your own model should not need this.
fraudstream models promote "$version" --approve "${FIRST_MODEL_APPROVED_BY:-first_model.sh}" --accept-unjudged
