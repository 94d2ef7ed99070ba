"""Visual tokens to words: Transformer, M2, CNN-RNN-RNN. One contract for all."""

from core.decoders.base import Decoder, DecoderOutput, DecoderState, Memory, build_decoder

__all__ = ["Decoder", "DecoderOutput", "DecoderState", "Memory", "build_decoder"]
