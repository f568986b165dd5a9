"""Multimodal deep learning from scratch: one hand-written piece a module. Start at README.md, then chapters/."""
