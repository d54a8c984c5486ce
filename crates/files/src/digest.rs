//! SHA-256 in hexadecimal.

use sha2::Sha256;

/// SHA-256 of bytes that arrive in pieces.
#[derive(Clone, Debug, Default)]
pub struct Digest(Sha256);

impl Digest {
    /// Adds bytes.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        sha2::Digest::update(&mut self.0, bytes);
    }

    /// The digest of all bytes so far, 64 hexadecimal digits.
    pub fn hexadecimal(self) -> String {
        let digest = sha2::Digest::finalize(self.0);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// SHA-256 of bytes, 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    let mut digest = Digest::default();
    digest.update(bytes);
    digest.hexadecimal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_standard_in_one_piece_and_in_many() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), abc);
        let mut pieces = Digest::default();
        pieces.update("a");
        pieces.update("bc");
        assert_eq!(pieces.hexadecimal(), abc);
    }
}
