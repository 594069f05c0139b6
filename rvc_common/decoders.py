"""Files of sound decoded to their real end, by libsndfile or by ffmpeg, whatever their headers say."""

from __future__ import annotations

import io
import re
import shutil
import struct
import subprocess
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .steps import SAMPLE_RATE

BLOCK_FRAMES, BLOCK_VALUES = 1 << 20, 1 << 23
# what a decoder may give more or less than the header says: an encoder's padding
PADDING_S = 0.1
# what may follow the audio unread: tags, and the last frames of an MP3, which are padding
TRAILER_BYTES = 1 << 12
# lengths from here on stand for "unknown": a program that writes to a pipe cannot go back to its header
UNKNOWN_FRAMES, UNKNOWN_BYTES = 1 << 48, 0x7FFF0000
ENDLESS = 1 << 40
# how a recording begins, by its first four bytes: `cat a.flac b.flac` gives one file that holds two
BEGINNINGS = {
    b"fLaC": rb"fLaC[\x00\x80]\x00\x00\x22",
    b"OggS": rb"OggS\x00[\x00-\x07]",
    b"RIFF": rb"RIFF....WAVE",
    b"RF64": rb"RF64....WAVE",
    b"FORM": rb"FORM....AIF[FC]",
}
LONGEST_BEGINNING = 12
# an MP3 of its own: a tag before it, or a frame that holds the count of frames
MP3_BEGINNING = rb"ID3[\x02-\x04]\x00|\xff[\xe2-\xff]..(?:.{9}|.{17}|.{32})(?:Xing|Info|VBRI)"
MP3_TAGS = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")
# what ffmpeg may take a file for: formats with a beginning of their own. Those without (AMR's bare frames, G.729, ...)
# fit headerless samples too, and would make sound of them that nobody recorded
FORMATS = (
    "aa,aac,aax,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,flv,iff,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,ogg,"
    "oma,rm,tak,tta,voc,w64,wav,webm,wsd,wv,xwma"
)


def shown(path: str | Path) -> str:
    """A path as part of one printable line, whatever characters it has."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


class Reading:
    """What a decoder made of a file: blocks at 16 kHz, and what went wrong.

    ``claimed_s``: what the header says, None where it does not; ``unread``: bytes that the decoder did not reach.
    """

    def __init__(self, name: str) -> None:
        self.name, self.blocks, self.error, self.unread = name, list[np.ndarray](), "", 0
        self.claimed_s: float | None = None

    @property
    def seconds(self) -> float:
        return sum(block.size for block in self.blocks) / SAMPLE_RATE

    def add(self, blocks: Iterable[np.ndarray], rate: int) -> None:
        """Blocks ``[n, channels]``, averaged and resampled."""
        import soxr

        if not 1000 <= rate <= 768000:
            raise ValueError(f"{self.name}: a sample rate of {rate} Hz makes no sense")
        resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="VHQ")
        mono = np.zeros(0, np.float32)
        for block in blocks:
            mono = block.mean(axis=1)
            if not np.isfinite(mono).all():
                raise ValueError(f"{self.name}: has NaN or infinite samples")
            self.blocks.append(mono if rate == SAMPLE_RATE else resampler.resample_chunk(mono))
        if rate != SAMPLE_RATE and mono.size:
            self.blocks.append(resampler.resample_chunk(mono[:0], last=True))


def decode(file: BinaryIO, name: str) -> Reading:
    """All audio of a file; recordings that were joined in it follow each other.

    Raises ``ValueError``: what is there cannot be decoded, or has NaN or infinite samples."""
    found = _with_libsndfile(file, name)
    if found.error or found.unread > TRAILER_BYTES:
        return _second_opinion(file, found)
    return found


# ---------------------------------------------------------------------- libsndfile
class _Part(io.RawIOBase):
    """Bytes ``start`` to ``stop`` of a file as a file of its own, and ``beyond`` zeros; ``at``: how far it was read."""

    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        self.file, self.start, self.stop, self.at, self.beyond = file, start, stop, start, 0
        self.failed: OSError | None = None

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = (self.start, self.at, self.stop + self.beyond)[whence] + offset
        return self.tell()

    def tell(self) -> int:
        return self.at - self.start

    def readinto(self, buffer: Any) -> int:
        if self.at >= self.stop:
            count = min(len(buffer), self.beyond)
            buffer[:count] = bytes(count)
        else:
            try:
                self.file.seek(self.at)
                count = self.file.readinto(memoryview(buffer)[: self.stop - self.at])  # type: ignore[attr-defined]
            except OSError as error:  # kept: one that is raised here is printed and forgotten
                self.failed, count = error, 0
        self.at += count
        return int(count)


def _with_libsndfile(file: BinaryIO, name: str) -> Reading:
    import soundfile

    found, size = Reading(name), file.seek(0, io.SEEK_END)
    if not size:
        raise ValueError(f"{name}: is empty")
    for start, stop in pairwise([*_beginnings(file), size]):
        at = start
        while at < stop:
            part, count = _Part(file, at, stop), len(found.blocks)
            try:
                at = _read_part(part, found)
            except soundfile.SoundFileError as error:
                if at == start or len(found.blocks) > count:  # else behind an MP3, where tags of many kinds are
                    found.error = (
                        getattr(error, "error_string", str(error)).removeprefix("Error : ").strip().rstrip(".")
                    )
                found.unread, at = stop - at, stop
            if part.failed:
                raise ValueError(f"{name}: cannot be read ({part.failed.strerror})")
            if found.error:
                return found
    return found


def _beginnings(file: BinaryIO) -> list[int]:
    """Where recordings begin in a file: at 0, and where others of its kind were joined to it."""
    file.seek(0)
    kind = file.read(4)
    found, at, last, opens = [0], 0, 0, True
    if kind not in BEGINNINGS:
        return found
    pattern, paged = re.compile(BEGINNINGS[kind], re.DOTALL), kind == b"OggS"
    while file.seek(at) == at and len(window := file.read(BLOCK_FRAMES)) >= LONGEST_BEGINNING:
        for match in pattern.finditer(window):
            if at + match.start() > last:  # windows overlap
                last, before = at + match.start(), opens
                # Ogg: every page matches; a recording begins with pages marked so, one for each of its streams
                opens = not paged or bool(match[0][5] & 2)
                if opens and not (paged and before):
                    found.append(last)
        at += len(window) - LONGEST_BEGINNING + 1
    return found


def _read_part(part: _Part, found: Reading) -> int:
    """Add one recording of a file to what was found; where the next may begin."""
    import soundfile

    # without a count of frames libsndfile guesses an MP3's length from its size, and would stop there: too early where
    # the bit rate varies. If zeros seem to follow while it guesses, it reads to the end
    guessed = _mp3_without_count(part)
    part.beyond = ENDLESS if guessed else 0
    with soundfile.SoundFile(part) as sound:
        part.beyond = 0
        # soundfile seeks after each read to where it should be by then; behind damage that would repeat audio
        sound.seekable = lambda: False
        rate, claimed = sound.samplerate, None
        if not guessed and sound.frames < UNKNOWN_FRAMES:
            claimed = sound.frames / rate
            # libsndfile shortens what the header says to the file's size, and notes it
            cut = re.search(r"^\s*(?:data|SSND) *: (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE)
            if cut:
                says, holds = map(int, cut.groups())
                claimed = None if says >= UNKNOWN_BYTES else claimed * says / max(holds, 1)
        if not found.blocks:
            found.claimed_s = claimed
        elif found.claimed_s is not None:
            found.claimed_s += claimed or 0.0
        found.add(_blocks(sound), rate)
        found.unread = part.stop - part.at
        if sound.format == "MP3":
            return _next_mp3(part, found)
        if sound.format not in ("FLAC", "OGG") and "Exiting parser" not in sound.extra_info:
            found.unread = 0  # chunks of something else, which libsndfile has understood
    return part.stop


def _blocks(sound: Any) -> Iterator[np.ndarray]:
    """What can be decoded, ``[n, channels]``; each block is overwritten by the next."""
    left = sound.frames  # FLAC's decoder fails behind it
    buffer = np.empty((min(BLOCK_FRAMES, BLOCK_VALUES // sound.channels, left), sound.channels), np.float32)
    while left > 0 and (count := len(sound.read(out=buffer[:left]))):
        yield buffer[:count]
        left -= count


def _mp3_without_count(part: _Part) -> bool:
    at, head = part.start, b"ID3"
    while head[:3] == b"ID3":
        part.file.seek(at)
        head = part.file.read(200)
        if head[:3] == b"ID3" and len(head) > 9:
            at += 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    is_mp3 = len(head) > 3 and head[0] == 0xFF and head[1] >= 0xE2 and head[1] & 6 != 0
    return is_mp3 and not re.search(b"Xing|Info|VBRI", head)


def _next_mp3(part: _Part, found: Reading) -> int:
    """Where further MP3 begins behind one whose frames were counted; the part's end if nowhere."""
    part.file.seek(part.at)
    rest = part.file.read(min(1 << 16, part.stop - part.at))
    match = re.search(MP3_BEGINNING, rest, re.DOTALL)
    if match:
        return part.at + match.start()
    if rest.startswith(MP3_TAGS):
        found.unread = 0
    return part.at if found.unread > TRAILER_BYTES else part.stop


# ---------------------------------------------------------------------- ffmpeg
def _second_opinion(file: BinaryIO, found: Reading) -> Reading:
    """ffmpeg's reading where it has more than libsndfile's, which failed or left a part of the file unread.

    Raises ``ValueError``: neither could decode what is there."""
    name, got, program = found.name, found.seconds, shutil.which("ffmpeg")
    of = "" if found.claimed_s is None else f" of {found.claimed_s:.2f} s"
    other = _with_ffmpeg(program, file, name) if program else Reading(name)
    if not other.error and other.seconds > got + (0 if found.error else PADDING_S):
        if found.error and (got or of):
            warnings.warn(f"{name}: is damaged ({found.error}); {other.seconds:.2f} s{of} were read", stacklevel=4)
            other.claimed_s = None
        elif not found.error:
            other.claimed_s = found.claimed_s
        return other
    if found.error:
        past = f" past {got:.2f} s{of}" if got else of and f":{of.removeprefix(' of')} by its header"
        hint = f", nor by ffmpeg ({other.error or 'no more'})" if program else "; ffmpeg might, but is not installed"
        raise ValueError(f"{name}: cannot be read{past} ({found.error}){hint}")
    size = file.seek(0, io.SEEK_END)
    if not got:
        hint = "" if program else "; ffmpeg might read them, but is not installed"
        raise ValueError(f"{name}: is empty by its header, and {found.unread} bytes follow{hint}")
    # no error: everything that the header tells of was read, and what follows may be no audio at all
    all_s = got * size / max(1, size - found.unread)
    warnings.warn(
        f"{name}: {got:.2f} s were read, as its header says; {found.unread} bytes follow"
        f" ({all_s:.2f} s in all if they are audio)",
        stacklevel=4,
    )
    return found


def _with_ffmpeg(program: str, file: BinaryIO, name: str) -> Reading:
    """The first audio stream, at its own rate and with its channels, through a pipe."""
    found = Reading(name)
    file.seek(0)
    # by number: neither odd characters in the name nor its ending, by which ffmpeg would guess, can mislead;
    # no network: playlists can name addresses
    source = f"/dev/fd/{file.fileno()}"
    words = [
        program,
        "-nostdin",
        "-hide_banner",
        "-nostats",
        "-protocol_whitelist",
        "file,pipe",
        "-format_whitelist",
        FORMATS,
        "-i",
        f"file:{source}",
    ]
    words += ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, pass_fds=(file.fileno(),)
            )
        except OSError as error:
            found.error = f"{program}: {error.strerror}"
            return found
        with process:
            assert process.stdout is not None
            try:
                head = process.stdout.read(24)
                if len(head) == 24:
                    _, offset, _, _, rate, channels = struct.unpack(">4s5I", head)
                    process.stdout.read(offset - 24)
                    found.add(_piped(process.stdout, channels), rate)
            except BaseException:  # an interrupt too: leaving ``with`` waits for the process
                process.kill()
                raise
        log.seek(0)
        text = log.read().decode(errors="replace").replace(f"file:{source}: ", "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if "misdetection possible" in text or "not on whitelist" in text:
        found.error = "not the format of any recording"
    elif "matches no streams" in text:
        found.error = "it holds no audio"
    elif process.returncode or not found.blocks:
        found.error = shown(lines[-1] if lines else f"exit code {process.returncode}")
    before = text.partition("Output #0")[0]
    told = re.search(r"Duration: (\d+):(\d\d):(\d\d\.\d+)", before)
    if told and "Estimating duration" not in before:
        hours, minutes, seconds = map(float, told.groups())
        found.claimed_s = hours * 3600 + minutes * 60 + seconds
    streams = len(re.findall(r"Stream #0:\d+.*: Audio:", before))
    if streams > 1 and not found.error:
        warnings.warn(f"{name}: holds {streams} audio streams; the first was read", stacklevel=5)
    return found


def _piped(stream: Any, channels: int) -> Iterator[np.ndarray]:
    frame = 4 * channels
    while block := stream.read(min(BLOCK_FRAMES * frame, BLOCK_VALUES * 4 // frame * frame)):
        yield np.frombuffer(block[: len(block) // frame * frame], ">f4").reshape(-1, channels).astype(np.float32)
