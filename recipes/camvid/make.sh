#!/usr/bin/env bash
# CamVid with no human label, in about two hours on two cores:
#   recipes/camvid/make.sh CAMVID WORK
# CAMVID holds train/ and val/, each with rgb/, labels/ (for scoring alone) and experts/. Each step resumes.
set -euo pipefail
recipe=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
camvid=${1:?the folder with train/ and val/}
work=${2:?the folder to work in}
data=$work/data

edgekit import frames "$camvid/train" -o "$data" --name train --fps 1
edgekit import frames "$camvid/val" -o "$data" --name val --fps 15 --split val

# First round: a student learns from the vote of the three experts, and becomes the fourth.
[ -f "$work/student-1/config.json" ] ||
    edgekit distill expert:vote "$data" -o "$work/student-1" -c "$recipe/first.toml" --resume
edgekit label "$work/student-1" "$data" --name student_1
edgekit jury "$data" --of espnetv2_s15,espnetv2_s20,dicenet_s175,student_1 -o "$work/jury.toml"
edgekit derive "$data" -c "$work/jury.toml"

# Second round: PHG-MAE on what the jury finds, its ensemble, and a student again.
[ -f "$work/phg-mae/config.json" ] ||
    edgekit train "$data" -o "$work/phg-mae" -c "$recipe/train.toml" --start "$work/student-1" --resume
[ -f "$work/student/config.json" ] ||
    edgekit distill "$work/phg-mae" "$data" -o "$work/student" -c "$recipe/train.toml" --start "$work/student-1" --resume

for model in expert:espnetv2_s15 expert:espnetv2_s20 expert:dicenet_s175 expert:vote "$work/student-1" expert:jury \
    "$work/phg-mae" "$work/student"; do
    edgekit eval "$model" "$data" --split val
done
edgekit eval "$work/phg-mae" "$data" --split val --members 6 --mirror
edgekit build --profile laptop-cpu --student "$work/student" --data "$data" -o "$work/build"
