//! Every refusal, from what a look could find.

use super::*;

const PTX: &str = "//\n// Cuda compilation tools, release 13.0, V13.0.88\n.version 9.0\n";

fn gpu() -> Gpu {
    Gpu {
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        capability: (9, 0),
        free: 79 << 30,
        total: 80 << 30,
    }
}

/// A machine on which all is well.
fn whole() -> Found {
    Found {
        driver: Some("580.65.06".to_owned()),
        visible: None,
        devices: Answer::Gave(1),
        gpu: Answer::Gave(gpu()),
        toolkit: Some("/usr/local/cuda".into()),
        missing: Vec::new(),
        ptx: Answer::Gave(PTX.to_owned()),
        loaded: Answer::Gave(()),
    }
}

fn refused(found: Found) -> String {
    found.judge().expect_err("refused")
}

fn failed<T>(error: &str) -> Answer<T> {
    Answer::Failed(error.to_owned())
}

/// Fails unless a message has all of some words.
fn has(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn a_whole_machine_is_used_and_described_in_a_line() {
    let found = whole();
    let gpu = found.judge().expect("whole");
    assert_eq!(
        line(&found, &gpu, "tf32"),
        "cuda: NVIDIA H100 80GB HBM3, compute capability 9.0, driver 580.65.06 (CUDA 13.0), NVRTC 13.0.88; 79.0 of 80.0 GiB free; f32, \
         products partly in tf32"
    );
    assert!(line(&found, &gpu, "bf16").ends_with("layers in bf16, products of f32 partly in tf32"));
    let turing = Gpu { capability: (7, 5), ..gpu };
    assert!(line(&found, &turing, "tf32").ends_with("GiB free; f32"));
    assert!(line(&found, &turing, "fp16").ends_with("; layers in fp16"));
    assert_eq!(turing.architecture(), "sm_75");
}

#[test]
fn without_a_driver_the_message_says_how_to_get_one() {
    let nothing = Found { devices: Answer::NoLibrary, ..Found::default() };
    has(&refused(nothing.clone()), &["no NVIDIA driver", "nvidia-driver-580", "--backend wgpu"]);
    has(&refused(Found::default()), &["no NVIDIA driver"]);
    let only_kernel = Found { driver: Some("535.183.01".to_owned()), ..nothing };
    has(&refused(only_kernel), &["535.183.01", "libcuda1", "--gpus all"]);
}

#[test]
fn a_driver_without_a_gpu_names_what_may_hide_it() {
    let none = Found { devices: failed("CUDA_ERROR_NO_DEVICE (no device)"), ..whole() };
    let message = refused(none.clone());
    has(&message, &["sees no GPU", "nvidia-smi"]);
    assert!(!message.contains("CUDA_VISIBLE_DEVICES"));
    has(
        &refused(Found { visible: Some("7".to_owned()), ..none }),
        &["CUDA_VISIBLE_DEVICES is `7`"],
    );
    has(&refused(Found { devices: Answer::Gave(0), ..whole() }), &["sees no GPU"]);
    let other = failed("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (mismatch)");
    has(&refused(Found { devices: other, ..whole() }), &["does not start", "MISMATCH", "restart"]);
}

#[test]
fn a_gpu_that_others_hold_says_so() {
    let gpu = |error| refused(Found { gpu: failed(error), ..whole() });
    has(&gpu("CUDA_ERROR_OUT_OF_MEMORY (x)"), &["hold its memory", "nvidia-smi"]);
    has(&gpu("CUDA_ERROR_DEVICE_UNAVAILABLE (x)"), &["for itself", "--compute-mode=0"]);
    has(&gpu("CUDA_ERROR_UNKNOWN (x)"), &["CUDA_ERROR_UNKNOWN", "restart"]);
}

#[test]
fn a_missing_compiler_or_header_is_named_with_its_packages() {
    let no_nvrtc = Found { ptx: Answer::NoLibrary, loaded: Answer::NotAsked, ..whole() };
    let message = refused(no_nvrtc.clone());
    has(&message, &["NVRTC", "cuda-nvrtc-13-0", "'nvidia-cuda-nvrtc==13.0.*'", "LD_LIBRARY_PATH"]);
    let older = Found { driver: Some("570.86.10".to_owned()), ..no_nvrtc };
    has(&refused(older), &["cuda-nvrtc-12-8", "'nvidia-cuda-nvrtc-cu12==12.8.*'"]);
    let no_headers = Found { toolkit: None, missing: HEADERS.to_vec(), ..whole() };
    let packages = ["cuda-cudart-dev-13-0 cuda-crt-13-0 cuda-cccl-13-0", "CUDA_PATH"];
    has(&refused(no_headers), &packages);
    let no_crt = Found { missing: vec!["crt/mma.h"], ..whole() };
    has(
        &refused(no_crt.clone()),
        &["/usr/local/cuda/include has no crt/mma.h", "nvidia-cuda-crt=="],
    );
    let not_there = Found { missing: HEADERS.to_vec(), ..whole() };
    has(&refused(not_there), &["no cuda_runtime.h, crt/host_config.h, crt/mma.h and 9 more"]);
    let of_12 = Found { driver: Some("550.54.14".to_owned()), ..no_crt };
    has(&refused(of_12), &["cuda-crt-12-4", "'nvidia-cuda-nvcc-cu12==12.4.*'"]);
}

#[test]
fn a_probe_that_does_not_compile_says_why() {
    let log = |log| refused(Found { ptx: failed(log), loaded: Answer::NotAsked, ..whole() });
    has(&log("nvrtc: error: failed to open libnvrtc-builtins.so.13.0.\n"), &["LD_LIBRARY_PATH"]);
    let architecture = "nvrtc: error: invalid value for --gpu-architecture (-arch)";
    has(&log(architecture), &["(sm_90a): it is older than this GPU", "cuda-nvrtc-13-0"]);
    let pascal = Gpu { capability: (6, 1), ..gpu() };
    let dropped = Found { gpu: Answer::Gave(pascal), ptx: failed(architecture), ..whole() };
    has(&refused(dropped), &["(sm_61): CUDA 13 has dropped it", "cuda-nvrtc-12-8"]);
    has(
        &log("p(1): catastrophic error: cannot open source file \"nv/target\"\n  #include\n"),
        &["has no nv/target", "cuda-cccl-13-0"],
    );
    has(&log("x\np(7): error: no half\n"), &["p(7): error: no half", "same CUDA version"]);
}

#[test]
fn a_driver_older_than_the_compiler_is_told_both_ways_out() {
    let loaded = failed("CUDA_ERROR_UNSUPPORTED_PTX_VERSION (old)");
    let old = Found { driver: Some("570.86.15".to_owned()), loaded, ..whole() };
    has(
        &refused(old.clone()),
        &[
            "driver 570.86.15 (CUDA 12.8) is older than NVRTC 13.0.88",
            "driver 580 or newer",
            "cuda-nvrtc-12-8 cuda-cudart-dev-12-8 cuda-crt-12-8 cuda-cccl-12-8",
        ],
    );
    // No toolkit that this driver knows has all headers.
    has(
        &refused(Found { driver: Some("535.183.01".to_owned()), ..old.clone() }),
        &[
            "driver 535.183.01 (CUDA 12.2) is older than NVRTC 13.0.88",
            "Use driver 580 or newer, or driver 550 and the toolkit of CUDA 12.4",
            "cuda-nvrtc-12-4",
        ],
    );
    has(
        &refused(Found { driver: None, ..old }),
        &["the driver is older than NVRTC 13.0.88", "older toolkit"],
    );
    let other = Found { loaded: failed("CUDA_ERROR_NO_BINARY_FOR_GPU (x)"), ..whole() };
    has(&refused(other), &["refuses a kernel of NVRTC 13.0.88", "NO_BINARY"]);
}
