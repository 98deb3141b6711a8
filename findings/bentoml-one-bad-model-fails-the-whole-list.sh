#!/usr/bin/env bash
# One model that BentoML cannot read or compare fails `bentoml models list` for the whole store.
#
# Seen with BentoML 1.4.40 on CPython 3.11.7. A creation_time without a time zone in one of two models is a TypeError of
# sorted(); a model.yaml without labels, or with labels: null, a ClassValidationError. Neither names the model or its file.
# Expected: the other models are listed, and a sentence names the one that is not.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q --disable-pip-version-check bentoml==1.4.40
export BENTOML_HOME=$work/home BENTOML_DO_NOT_TRACK=True
mkdir "$BENTOML_HOME"
"$work/v/bin/python" -W ignore -c "
import bentoml
for version in ('v1', 'v2'):
    with bentoml.models.create(f'demo:{version}'):
        pass
"
yaml=$BENTOML_HOME/models/demo/v1/model.yaml
good=$(cat "$yaml")
for change in 's/+00:00//' '/^labels:/d' 's/^labels:.*/labels: null/'; do
  sed "$change" <<<"$good" >"$yaml"
  "$work/v/bin/bentoml" models list >"$work/said" 2>&1 && echo "listed" || echo "$? $(grep -oE '(TypeError|ClassValidationError): .*' "$work/said" | tail -1)"
  grep -qE 'demo:v[12]|models/demo' "$work/said" && echo "a model is named" || echo "no model is named"
done | tee "$work/out"
diff "$work/out" - <<'SEEN'
1 TypeError: can't compare offset-naive and offset-aware datetimes
no model is named
1 ClassValidationError: While structuring ModelInfo (1 sub-exception)
no model is named
1 ClassValidationError: While structuring ModelInfo (1 sub-exception)
no model is named
SEEN
echo "as described"
