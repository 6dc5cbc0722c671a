//! Whether this processor has the instruction sets that ggml was compiled for.
//!
//! ggml's kernels are compiled once, for the settings of the build (`native`, `GGML_AVX2=OFF`, …), and do not check the
//! processor at run time. A processor that lacks something would end the process with an illegal instruction, so we
//! check it before any kernel runs.

use crate::error::{Error, Result};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::ffi;

/// An instruction set beyond the baseline of the architecture.
struct Extension {
    name: &'static str,
    /// Whether this build's kernels use it.
    used: bool,
    /// Whether this processor has it.
    available: bool,
}

/// ggml itself reports what it was compiled with, so this is right whatever the settings of cmake were.
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
    // The subsets that ggml's AVX-512 kernels are compiled for.
    let avx512 = detected!("avx512f") && detected!("avx512bw") && detected!("avx512dq") && detected!("avx512vl");
    let available = [
        // AMX is not checked: ggml requests it from the system at run time, and works without it.
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
    let both = available.into_iter().zip(used);
    both.map(|((name, available), used)| Extension { name, used: used != 0, available }).collect()
}

/// ggml itself reports what it was compiled with, so this is right whatever the settings of cmake were.
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
    let available = [
        ("dot product", detected!("dotprod")),
        ("FP16", detected!("fp16")),
        ("I8MM", detected!("i8mm")),
        ("SVE", detected!("sve")),
    ];
    let both = available.into_iter().zip(used);
    both.map(|((name, available), used)| Extension { name, used: used != 0, available }).collect()
}

/// Other architectures are not checked.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn extensions() -> Vec<Extension> {
    Vec::new()
}

/// Returns the instruction sets that this build requires beyond the baseline of the architecture: `AVX2`, `FMA`, …
/// Empty if any processor will do.
pub fn needed_extensions() -> Vec<&'static str> {
    extensions().into_iter().filter(|extension| extension.used).map(|extension| extension.name).collect()
}

/// Checks that this processor can run this build. A program should call this before anything else; loading a model
/// calls it, too.
///
/// # Errors
/// [`Error::Processor`], which names what the processor lacks.
pub fn check_processor() -> Result<()> {
    require(&extensions())
}

fn require(extensions: &[Extension]) -> Result<()> {
    let lacks = |extension: &&Extension| extension.used && !extension.available;
    let missing: Vec<_> = extensions.iter().filter(lacks).map(|extension| extension.name).collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::Processor { missing }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_used_must_be_there() {
        let extension = |name, used, available| Extension { name, used, available };
        assert!(require(&[extension("A", true, true), extension("B", false, false)]).is_ok());
        let all = [extension("A", true, false), extension("B", false, false), extension("C", true, false)];
        let text = require(&all).expect_err("no").to_string();
        assert!(text.starts_with("this processor has no A, C,"), "{text}");
    }

    #[test]
    fn what_built_it_can_run_it() {
        check_processor().expect("a processor for this build");
    }
}
