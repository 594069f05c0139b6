"""Synthetic voices whose F0 is known exactly, made batch by batch on any PyTorch device.

B = items, T = 10 ms frames of ``reference_torch.audio.LogMel`` (frame k is centred on sample 160 k),
C = control points (one a millisecond), N = samples at 16 kHz. Pitch is in cents above 10 Hz.
Every value depends only on a seed, and nothing waits for the device.
"""
