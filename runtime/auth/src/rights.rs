//! What access policies allow.

use std::fmt;
use std::str::FromStr;

/// A text that names no right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a right; the rights are {1}")]
pub struct UnknownRight(String, &'static str);

/// Longest part of an unknown right that an error repeats, in characters.
const MAX_QUOTED: usize = 40;

macro_rules! rights {
    ($(#[$doc:meta])* $name:ident: $bits:ty { $($(#[$right_doc:meta])* $right:ident = $value:expr, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $name($bits);

        impl $name {
            /// No right.
            pub const NONE: Self = Self(0);
            /// Every right.
            pub const ALL: Self = Self(0 $(| $value)*);
            $($(#[$right_doc])* pub const $right: Self = Self($value);)*

            const NAMED: &[(Self, &str)] = &[$((Self::$right, $text)),*];

            /// The flag value; see the constants.
            pub const fn bits(self) -> $bits {
                self.0
            }

            /// The rights with this flag value; `None` if it is not made of the constants.
            pub fn from_bits(bits: $bits) -> Option<Self> {
                let named = Self::NAMED.iter().filter(|(right, _)| Self(bits).contains(*right));
                let union = named.fold(Self::NONE, |union, (right, _)| union | *right);
                (union.0 == bits).then_some(union)
            }

            /// Whether all of `required` are here.
            pub const fn contains(self, required: Self) -> bool {
                self.0 & required.0 == required.0
            }

            /// The rights of either.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                self.with(other)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = UnknownRight;

            /// Reads names with commas between them, ignoring case and blanks; no text is no right.
            fn from_str(text: &str) -> Result<Self, UnknownRight> {
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                names.map(|name| {
                    let known = Self::NAMED.iter().find(|(_, known)| known.eq_ignore_ascii_case(name));
                    known.map(|(right, _)| *right).ok_or_else(|| {
                        UnknownRight(name.chars().take(MAX_QUOTED).collect(), concat!($($text, " "),*).trim_end())
                    })
                }).try_fold(Self::NONE, |all, right| Ok(all | right?))
            }
        }
    };
}

rights! {
    /// The rights of a hub's access policy; the flag values are those of the service SDKs (protocol notes:
    /// authorization §2).
    Rights: u8 {
        /// Read identities and statistics.
        REGISTRY_READ = 1, "RegistryRead";
        /// Create, update and delete identities; implies [`Rights::REGISTRY_READ`].
        REGISTRY_WRITE = 3, "RegistryWrite";
        /// The service-facing endpoints: twins, methods, queries, jobs, messages.
        SERVICE_CONNECT = 4, "ServiceConnect";
        /// The device-facing endpoints.
        DEVICE_CONNECT = 8, "DeviceConnect";
    }
}

rights! {
    /// The rights of a provisioning service's access policy (protocol notes: authorization §4). None implies another.
    DpsRights: u8 {
        /// Service configuration.
        SERVICE_CONFIG = 1, "ServiceConfig";
        /// Read, query and show the attestation of enrollments and groups.
        ENROLLMENT_READ = 2, "EnrollmentRead";
        /// Create, update and delete enrollments and groups.
        ENROLLMENT_WRITE = 4, "EnrollmentWrite";
        /// Device-facing registration with the service's credentials.
        DEVICE_CONNECT = 8, "DeviceConnect";
        /// Read and query registration states.
        REGISTRATION_STATUS_READ = 16, "RegistrationStatusRead";
        /// Delete registration states.
        REGISTRATION_STATUS_WRITE = 32, "RegistrationStatusWrite";
    }
}

impl fmt::Display for Rights {
    /// The text that the management API emits: comma and blank between names. Write alone is spelled out as
    /// `RegistryRead, RegistryWrite`; with other rights `RegistryWrite` says it all.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::REGISTRY_WRITE {
            return formatter.write_str("RegistryRead, RegistryWrite");
        }
        let read_is_implied = self.contains(Self::REGISTRY_WRITE);
        let names = Self::NAMED.iter().filter(|(right, _)| !(*right == Self::REGISTRY_READ && read_is_implied));
        write_joined(formatter, names.filter(|(right, _)| self.contains(*right)).map(|(_, name)| *name))
    }
}

impl fmt::Display for DpsRights {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_joined(formatter, Self::NAMED.iter().filter(|(right, _)| self.contains(*right)).map(|(_, name)| *name))
    }
}

fn write_joined<'a>(formatter: &mut fmt::Formatter<'_>, names: impl Iterator<Item = &'a str>) -> fmt::Result {
    for (position, name) in names.enumerate() {
        if position > 0 {
            formatter.write_str(", ")?;
        }
        formatter.write_str(name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_implies_read() {
        assert!(Rights::REGISTRY_WRITE.contains(Rights::REGISTRY_READ));
        assert!(!Rights::REGISTRY_READ.contains(Rights::REGISTRY_WRITE));
        assert!(!Rights::ALL.with(Rights::NONE).contains(Rights(16)));
        assert!(!Rights::SERVICE_CONNECT.contains(Rights::DEVICE_CONNECT));
        assert_eq!(Rights::from_bits(15), Some(Rights::ALL));
        assert_eq!(Rights::from_bits(16), None);
        assert_eq!(Rights::REGISTRY_WRITE.bits(), 3);
    }

    #[test]
    fn every_combination_survives_its_text() {
        for bits in 0..16 {
            let rights = Rights::from_bits(bits);
            assert_eq!(rights.is_none(), bits & 3 == 2, "there is no write without read");
            if let Some(rights) = rights {
                assert_eq!(rights.to_string().parse(), Ok(rights), "{rights}");
            }
        }
        for bits in 0..64 {
            let rights = DpsRights::from_bits(bits).unwrap();
            assert_eq!(rights.to_string().parse(), Ok(rights), "{rights}");
        }
    }

    #[test]
    fn reads_any_case_and_names_what_it_does_not_know() {
        assert_eq!("registrywrite,DEVICECONNECT".parse(), Ok(Rights::REGISTRY_WRITE | Rights::DEVICE_CONNECT));
        assert_eq!("".parse(), Ok(Rights::NONE));
        assert_eq!(
            "ServiceConnect, Everything".parse::<Rights>().unwrap_err().to_string(),
            "`Everything` is not a right; the rights are RegistryRead RegistryWrite ServiceConnect DeviceConnect"
        );
        assert_eq!(
            "ServiceConfig, DeviceConnect, EnrollmentWrite".parse::<DpsRights>().unwrap().to_string(),
            "ServiceConfig, EnrollmentWrite, DeviceConnect"
        );
    }
}
