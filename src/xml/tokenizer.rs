//! The incremental tokenizer (to be written by its owner).
