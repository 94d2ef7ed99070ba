"""Visual tokens in, words out: Transformer, M2, CNN-RNN-RNN behind one contract, and one search for all."""

from core.decoders.base import Decoder, DecoderOutput, DecoderState, Memory, build_decoder, decoder_class

__all__ = ["Decoder", "DecoderOutput", "DecoderState", "Memory", "build_decoder", "decoder_class"]
