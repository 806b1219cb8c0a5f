#!/usr/bin/env bash
# CamVid with no human label, in about forty minutes on two cores:
#   recipes/camvid/make.sh CAMVID WORK
# CAMVID holds train/ and val/, each with rgb/, labels/ (for scoring alone) and experts/. Each step resumes.
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
camvid=${1:?the folder with train/ and val/}
work=${2:?the folder to work in}

edgekit import frames "$camvid/train" -o "$work/data" --name train --fps 1
edgekit import frames "$camvid/val" -o "$work/data" --name val --fps 15 --split val
[ -f "$work/phg-mae/config.json" ] || edgekit train "$work/data" -o "$work/phg-mae" -c "$recipe/train.toml" --resume
[ -f "$work/student/config.json" ] ||
    edgekit distill "$work/phg-mae" "$work/data" -o "$work/student" -c "$recipe/train.toml" --resume
for model in expert:espnetv2_s15 expert:espnetv2_s20 expert:dicenet_s175 expert:vote "$work/phg-mae" "$work/student"; do
    edgekit eval "$model" "$work/data" --split val
done
edgekit eval "$work/phg-mae" "$work/data" --split val --members 12 --mirror
edgekit build --profile laptop-cpu --student "$work/student" --data "$work/data" -o "$work/build"
