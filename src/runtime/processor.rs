//! Whether this processor has what llama.cpp's code for processors was compiled for.
//!
//! ggml's kernels are compiled once, for what the build was told (`native`, `GGML_AVX2=OFF`, …), and do not look at the
//! processor that they run on. One that lacks something would end the process with an illegal instruction, so it is
//! looked at before any of them runs.

use crate::error::{Error, Result};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::ffi;

/// Instructions beyond the base of the architecture.
struct Extension {
    name: &'static str,
    /// This build's kernels use them.
    used: bool,
    /// This processor has them.
    there: bool,
}

/// Asks ggml itself what it was compiled with, so that this is right whatever cmake was told.
#[cfg(target_arch = "x86_64")]
fn extensions() -> Vec<Extension> {
    use std::arch::is_x86_feature_detected as detected;
    // SAFETY: these functions return constants of the build. They use nothing of the processor.
    let used = unsafe {
        [
            ffi::ggml_cpu_has_ssse3(),
            ffi::ggml_cpu_has_avx(),
            ffi::ggml_cpu_has_avx2(),
            ffi::ggml_cpu_has_fma(),
            ffi::ggml_cpu_has_f16c(),
            ffi::ggml_cpu_has_bmi2(),
            ffi::ggml_cpu_has_avx_vnni(),
            ffi::ggml_cpu_has_avx512(),
            ffi::ggml_cpu_has_avx512_vbmi(),
            ffi::ggml_cpu_has_avx512_vnni(),
            ffi::ggml_cpu_has_avx512_bf16(),
        ]
    };
    // Every processor with AVX-512 that ggml is built for has these parts of it.
    let avx512 = detected!("avx512f") && detected!("avx512bw") && detected!("avx512dq") && detected!("avx512vl");
    let there = [
        // AMX is missing: ggml asks the system for it, and does without.
        ("SSSE3", detected!("ssse3")),
        ("AVX", detected!("avx")),
        ("AVX2", detected!("avx2")),
        ("FMA", detected!("fma")),
        ("F16C", detected!("f16c")),
        ("BMI2", detected!("bmi2")),
        ("AVX-VNNI", detected!("avxvnni")),
        ("AVX-512", avx512),
        ("AVX-512 VBMI", detected!("avx512vbmi")),
        ("AVX-512 VNNI", detected!("avx512vnni")),
        ("AVX-512 BF16", detected!("avx512bf16")),
    ];
    let both = there.into_iter().zip(used);
    both.map(|((name, there), used)| Extension { name, used: used != 0, there }).collect()
}

/// Asks ggml itself what it was compiled with, so that this is right whatever cmake was told.
#[cfg(target_arch = "aarch64")]
fn extensions() -> Vec<Extension> {
    use std::arch::is_aarch64_feature_detected as detected;
    // SAFETY: these functions return constants of the build. They use nothing of the processor.
    let used = unsafe {
        [
            ffi::ggml_cpu_has_dotprod(),
            ffi::ggml_cpu_has_fp16_va(),
            ffi::ggml_cpu_has_matmul_int8(),
            ffi::ggml_cpu_has_sve(),
        ]
    };
    let there = [
        ("dot product", detected!("dotprod")),
        ("FP16", detected!("fp16")),
        ("I8MM", detected!("i8mm")),
        ("SVE", detected!("sve")),
    ];
    let both = there.into_iter().zip(used);
    both.map(|((name, there), used)| Extension { name, used: used != 0, there }).collect()
}

/// Not known elsewhere.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn extensions() -> Vec<Extension> {
    Vec::new()
}

/// What this build needs of a processor beyond the base of its architecture: `AVX2`, `FMA`, … None, if any will do.
pub fn needed_extensions() -> Vec<&'static str> {
    extensions().into_iter().filter(|extension| extension.used).map(|extension| extension.name).collect()
}

/// Whether this processor can run what this build computes with. A program asks before it does anything else; loading a
/// model asks, too.
///
/// # Errors
/// [`Error::Processor`] with what it lacks.
pub fn check_processor() -> Result<()> {
    refuse(&extensions())
}

fn refuse(extensions: &[Extension]) -> Result<()> {
    let lacks = |extension: &&Extension| extension.used && !extension.there;
    let missing: Vec<_> = extensions.iter().filter(lacks).map(|extension| extension.name).collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::Processor { missing }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_used_must_be_there() {
        let extension = |name, used, there| Extension { name, used, there };
        assert!(refuse(&[extension("A", true, true), extension("B", false, false)]).is_ok());
        let all = [extension("A", true, false), extension("B", false, false), extension("C", true, false)];
        let text = refuse(&all).expect_err("no").to_string();
        assert!(text.starts_with("this processor has no A, C,"), "{text}");
    }

    #[test]
    fn what_built_it_can_run_it() {
        check_processor().expect("a processor for this build");
    }
}
