//! Header of a request: how much to answer, and how to mark it.

use std::num::NonZeroU8;

/// Length of a header on the wire; a request is at least that long.
pub const REQUEST_HEADER_BYTES: usize = 20;

const MAGIC: u32 = 0x7472_6c31;

/// What the client asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// Length of the whole request, header counted.
    pub request_bytes: u32,
    /// Length of the reply.
    pub reply_bytes: u64,
    /// Band that the sender marks the reply with, counted from one (the oracle); else the
    /// reply goes out unmarked.
    pub band: Option<NonZeroU8>,
}

impl Request {
    /// The header as sent, integers in little-endian order.
    #[must_use]
    pub fn encode(&self) -> [u8; REQUEST_HEADER_BYTES] {
        let mut header = [0; REQUEST_HEADER_BYTES];
        header[..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4] = self.band.map_or(0, NonZeroU8::get);
        header[8..12].copy_from_slice(&self.request_bytes.to_le_bytes());
        header[12..].copy_from_slice(&self.reply_bytes.to_le_bytes());
        header
    }

    /// Reads a header; `None` if it is not one of ours.
    #[must_use]
    pub fn decode(header: &[u8; REQUEST_HEADER_BYTES]) -> Option<Self> {
        let (magic, rest) = header.split_first_chunk::<4>()?;
        let (band, rest) = rest.split_first_chunk::<4>()?;
        let (request_bytes, rest) = rest.split_first_chunk::<4>()?;
        let reply_bytes = rest.first_chunk::<8>()?;
        (u32::from_le_bytes(*magic) == MAGIC).then_some(Self {
            request_bytes: u32::from_le_bytes(*request_bytes),
            reply_bytes: u64::from_le_bytes(*reply_bytes),
            band: NonZeroU8::new(band[0]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        for band in [None, NonZeroU8::new(1), NonZeroU8::new(8)] {
            let request = Request {
                request_bytes: 421,
                reply_bytes: 5_000_000_000,
                band,
            };
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
    }

    #[test]
    fn foreign_bytes_are_refused() {
        assert_eq!(Request::decode(&[0x47; REQUEST_HEADER_BYTES]), None);
    }
}
