#!/usr/bin/env bash
# Makes suites/data/speech.flac with Debian's espeak-ng and sox: a rule-based formant voice
# reading a sentence of our own, 16 kHz mono.
set -euo pipefail
cd "$(dirname "$0")/.."
espeak-ng -v en-gb -s 150 -p 45 -w /tmp/speech.wav \
  "A benchmark is a promise. Say what you measured, how you measured it, and what you left out. Then let the reader check every number."
sox /tmp/speech.wav -r 16000 -c 1 -b 16 suites/data/speech.flac gain -n -3
rm /tmp/speech.wav
