//! What to install or change, in the words of error messages.

use std::path::Path;

use super::{
    Gpu,
    versions::{Version, cuda_of_driver, driver_for},
};

/// No driver at all.
pub const NO_DRIVER: &str = "there is no NVIDIA driver: libcuda.so.1 cannot be loaded. Install the driver and restart the machine (Ubuntu: \
    `apt install nvidia-driver-580`, Debian: `apt install nvidia-driver`); start a container with `--gpus all`. Without an NVIDIA GPU, \
    use --backend wgpu or flex";

/// A kernel with the driver's module, and no library.
pub const LIBCUDA: &str = "install it (Ubuntu: `apt install libnvidia-compute-580`, Debian: `apt install libcuda1`, of the same version), or \
    start the container with `--gpus all`";

/// A driver that does not start.
pub const RESTART: &str =
    "`nvidia-smi` must show the GPU; after an update of the driver, restart the machine";

/// A driver without a device.
pub const NO_DEVICE: &str = "`nvidia-smi` must show one; a container needs `--gpus all`, a job of a cluster must ask for one";

/// The CUDA version that the program was tried with, and that is advised unless the driver is older.
const ADVISED: Version = Version::new(13, 0);

/// The oldest CUDA version whose headers have all that kernels include: `cuda/ptx` came with it.
const OLDEST: Version = Version::new(12, 4);

/// The last CUDA version for GPUs before Turing, of the versions that the program was tried with.
const LAST_FOR_OLD_GPUS: Version = Version::new(12, 8);

/// The parts of a CUDA toolkit, as `install` names them, that some headers come from.
pub fn packages_of(headers: &[&str]) -> Vec<&'static str> {
    let has = |part: &str| headers.iter().any(|header| package_of(header) == part);
    ["runtime", "crt", "cccl"].into_iter().filter(|part| has(part)).collect()
}

/// The first names of a list, and how many there are besides.
pub fn some_of(names: &[&str]) -> String {
    let (shown, rest) = names.split_at(names.len().min(3));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("{}{more}", shown.join(", "))
}

fn package_of(header: &str) -> &'static str {
    match header.split('/').next() {
        Some("crt") => "crt",
        Some("cuda" | "nv" | "cub" | "thrust") => "cccl",
        _ => "runtime",
    }
}

/// The commands that install parts of a toolkit that a driver's CUDA version knows.
pub fn install(parts: &[&str], driver: Option<Version>) -> String {
    let Version { major, minor, .. } =
        driver.map_or(ADVISED, |driver| driver.clamp(OLDEST, ADVISED));
    let debian = parts.iter().map(|part| {
        let name = if *part == "runtime" { "cudart-dev" } else { part };
        format!("cuda-{name}-{major}-{minor}")
    });
    // The wheels of CUDA 12 have `crt/` in the compiler's.
    let wheels = parts.iter().map(|part| match (*part, major) {
        ("crt", ..=12) => format!("nvidia-cuda-nvcc-cu12=={major}.{minor}.*"),
        (part, ..=12) => format!("nvidia-cuda-{part}-cu12=={major}.{minor}.*"),
        (part, _) => format!("nvidia-cuda-{part}=={major}.{minor}.*"),
    });
    format!(
        "Install {}: `apt install {}` from NVIDIA's repository, or `pip install {}`",
        if parts.len() == 1 { "it" } else { "them" },
        debian.collect::<Vec<_>>().join(" "),
        wheels.map(|wheel| format!("'{wheel}'")).collect::<Vec<_>>().join(" ")
    )
}

/// A probe kernel that NVRTC did not compile, with its log.
pub fn not_compiled(log: &str, gpu: &Gpu, toolkit: &Path, driver: Option<Version>) -> String {
    let include = toolkit.join("include");
    if log.contains("libnvrtc-builtins") {
        return format!(
            "NVRTC does not find its second library, libnvrtc-builtins: add the directory of libnvrtc.so to LD_LIBRARY_PATH ({})",
            first_error(log)
        );
    }
    if log.contains("gpu-architecture") {
        let dropped = gpu.capability < (7, 5);
        let cause = if dropped { "CUDA 13 has dropped it" } else { "it is older than this GPU" };
        let knows = if dropped { Some(LAST_FOR_OLD_GPUS) } else { driver };
        return format!(
            "NVRTC does not compile for {} ({}): {cause}. {}",
            gpu.name,
            gpu.architecture(),
            install(&["nvrtc", "runtime", "crt", "cccl"], knows)
        );
    }
    if let Some(header) = unopened(log) {
        return format!(
            "CUDA's headers are incomplete: {} has no {header}. {}",
            include.display(),
            install(&[package_of(header)], driver)
        );
    }
    format!(
        "NVRTC does not compile a probe kernel with the headers in {}: {}. Headers and NVRTC must be of the same CUDA version",
        include.display(),
        first_error(log)
    )
}

/// The header that a log says cannot be opened.
fn unopened(log: &str) -> Option<&str> {
    log.split_once("open source file \"")?.1.split('"').next()
}

/// The line of a log that has its first error, or its first line.
fn first_error(log: &str) -> &str {
    let line = log.lines().find(|line| line.contains("error"));
    line.or_else(|| log.lines().next()).unwrap_or_default().trim()
}

/// A driver that is older than NVRTC.
pub fn older_nvrtc(
    driver_name: &str,
    compiler: &str,
    error: &str,
    driver: Option<&str>,
    nvrtc: Option<Version>,
) -> String {
    let newer = nvrtc
        .and_then(driver_for)
        .map_or_else(|| "a newer driver".to_owned(), |branch| format!("driver {branch} or newer"));
    let older = match driver.and_then(cuda_of_driver) {
        Some(cuda) if cuda < OLDEST => format!(
            "{} and the toolkit of CUDA {OLDEST}, the oldest with all headers. {}",
            driver_for(OLDEST).map_or_else(String::new, |branch| format!("driver {branch}")),
            install(&["nvrtc", "runtime", "crt", "cccl"], Some(cuda))
        ),
        Some(cuda) if nvrtc.is_none_or(|nvrtc| cuda < nvrtc) => format!(
            "the toolkit of CUDA {cuda}. {}",
            install(&["nvrtc", "runtime", "crt", "cccl"], Some(cuda))
        ),
        _ => {
            "an older toolkit; `nvidia-smi` shows the newest CUDA that the driver knows".to_owned()
        }
    };
    format!(
        "the {driver_name} is older than {compiler} and refuses its kernels: {error}. Use {newer}, or {older}"
    )
}
