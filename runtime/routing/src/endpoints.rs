//! The endpoints of a hub as small numbers, and sets of them.

use crate::names::EndpointName;
use crate::table::{MAX_ENDPOINTS, TableError};

/// The endpoints of a table, each named once, in the order of first mention.
#[derive(Clone, Default)]
pub(crate) struct Endpoints(pub(crate) Vec<EndpointName>);

impl Endpoints {
    /// The place of an endpoint, which is added unless it is there.
    pub(crate) fn place(&mut self, name: &EndpointName) -> Result<u8, TableError> {
        let place = self.0.iter().position(|known| known == name).unwrap_or(self.0.len());
        let small = u8::try_from(place).ok().filter(|_| place < MAX_ENDPOINTS).ok_or(TableError::TooManyEndpoints)?;
        if place == self.0.len() {
            self.0.push(name.clone());
        }
        Ok(small)
    }
}

/// A set of places in [`crate::RouteTable::endpoints`], all below [`MAX_ENDPOINTS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EndpointSet(pub(crate) u64);

impl EndpointSet {
    pub(crate) fn with(self, place: u8) -> Self {
        Self(self.0 | 1_u64.checked_shl(u32::from(place)).unwrap_or(0))
    }
    pub(crate) fn contains(self, place: u8) -> bool {
        self.0.checked_shr(u32::from(place)).unwrap_or(0) & 1 == 1
    }
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The places, rising.
    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let place = u8::try_from(rest.trailing_zeros()).ok().filter(|_| rest != 0)?;
            rest &= rest - 1;
            Some(place)
        })
    }
}
