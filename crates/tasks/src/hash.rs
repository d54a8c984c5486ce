//! Hashes that are equal on every machine and in every version of Rust.

/// The FNV-1a hash of a text.
pub fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The FNV-1a hash of a text, its bits mixed with the last step of `SplitMix64`.
///
/// FNV-1a alone must not rank short texts: texts that begin alike have hashes close to each other,
/// so a rank follows the first letters.
pub fn mixed(text: &str) -> u64 {
    let hash = fnv1a(text);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
