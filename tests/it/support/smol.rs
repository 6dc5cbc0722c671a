//! The model that most tests use.

use sharpv::models::{self, ModelFiles};

/// The files of `smol`, from the program's cache.
pub fn files() -> ModelFiles {
    models::resolve("smol", None, &[])
        .unwrap_or_else(|error| panic!("these tests need the model smol: run ./x test, or sharpv pull smol ({error})"))
}
