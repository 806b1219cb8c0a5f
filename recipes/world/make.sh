#!/usr/bin/env bash
# Classes, depth and normals from the picture alone, scored against the exact truth of the synthetic world, in about
# half an hour on two cores:
#   recipes/world/make.sh WORK
# Each step resumes.
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=${1:?the folder to work in}

flights() { # PATHS FRAMES FIRST LAST, the last two being seeds
    for seed in $(seq "$3" "$4"); do
        for path in $1; do echo "world:$seed?path=$path&frames=$2&size=480x272&fps=0.4"; done
    done
}

mapfile -t train < <(flights "0 1" 12 3000 3031)
mapfile -t val < <(flights "0" 10 4000 4009)
edgekit extract "${train[@]}" -o "$work/data" -c "$recipe/extract.toml"
edgekit extract "${val[@]}" -o "$work/data" -c "$recipe/extract.toml" --split val
[ -f "$work/phg-mae/config.json" ] || edgekit train "$work/data" -o "$work/phg-mae" -c "$recipe/train.toml" --resume
[ -f "$work/student/config.json" ] ||
    edgekit distill "$work/phg-mae" "$work/data" -o "$work/student" -c "$recipe/train.toml" --resume
for model in expert:simulated_sharp expert:vote expert:simulated_depth expert:normals "$work/phg-mae" "$work/student"; do
    edgekit eval "$model" "$work/data" --split val
done
