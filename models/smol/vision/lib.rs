//! Data of `sharpv`: the trained part of the vision encoder of its model `smol`, and the recipe by which
//! `sharpv pull smol` puts it together with DINOv2's weights.
#![no_std]

/// Where each piece of the file comes from, a line for each. `sharpv::models::Recipe` says what the lines mean.
pub const RECIPE: &str = include_str!("recipe.txt");

/// What is not among DINOv2's weights: the header, the projector, the position embeddings for 16×16 patches.
// A static, for a constant would be there once more wherever it is used.
pub static OWN: [u8; 2_724_672] = *include_bytes!("own.bin");
