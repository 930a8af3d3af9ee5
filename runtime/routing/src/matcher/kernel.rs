//! The two inner loops, compiled for the vector instructions of the processor that runs them.
//!
//! Both are plain loops over whole words, which the compiler turns into vector code for each instruction set; which one
//! runs is decided once, when a matcher is built. On aarch64 NEON is always there. A test compares all sets that the
//! machine has with the plain one.

/// The widest row: 512 routes, one AVX-512 register.
pub(super) const MAX_WORDS: usize = 8;

/// Constants of a term up to which they are counted instead of searched: a few vector compares beat the mispredicted
/// branches of a binary search.
const COUNTED: usize = 64;

/// An instruction set that this machine has: it can only be made by asking for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kernel(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Default for Kernel {
    fn default() -> Self {
        Self::SCALAR
    }
}

impl Kernel {
    /// What every processor of the architecture has.
    pub(super) const SCALAR: Self = Self(Set::Plain);

    /// The widest set that this machine has.
    pub(super) fn detect() -> Self {
        Self::available().last().copied().unwrap_or(Self::SCALAR)
    }

    /// The sets that this machine has, the widest last.
    pub(super) fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let mut sets = vec![Self::SCALAR];
            if std::arch::is_x86_feature_detected!("avx2") {
                sets.push(Self(Set::Avx2));
                if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512vl") {
                    sets.push(Self(Set::Avx512));
                }
            }
            sets
        }
        #[cfg(not(target_arch = "x86_64"))]
        vec![Self::SCALAR]
    }
}

/// Clears the bits of `mask` that are not set in every picked row; whether one is left.
#[inline]
pub(super) fn combine<const W: usize>(kernel: Kernel, rows: &[[u64; W]], picks: &[u32], mask: &mut [u64; W]) -> bool {
    match kernel.0 {
        #[cfg(target_arch = "x86_64")]
        // A row of one or two words is not worth more than the baseline has.
        Set::Avx2 | Set::Avx512 if W <= 2 => plain_combine(rows, picks, mask),
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls code for instructions that the compiler cannot know to be there")]
        // SAFETY: a `Kernel` of this set exists only where `available` found its instructions.
        Set::Avx2 => unsafe { x86::combine_avx2(rows, picks, mask) },
        #[cfg(target_arch = "x86_64")]
        #[expect(unsafe_code, reason = "calls code for instructions that the compiler cannot know to be there")]
        // SAFETY: a `Kernel` of this set exists only where `available` found its instructions.
        Set::Avx512 => unsafe { x86::combine_avx512(rows, picks, mask) },
        Set::Plain => plain_combine(rows, picks, mask),
    }
}

/// How many of the rising numbers are less than `value`, which is a number.
#[inline]
pub(super) fn rank(kernel: Kernel, numbers: &[f64], value: f64) -> usize {
    let (mut start, mut length) = (0, numbers.len());
    while length > COUNTED {
        let half = length / 2;
        // Everything before `start` is less than the value, nothing from `start + length` on.
        if numbers.get(start + half - 1).is_some_and(|number| *number < value) {
            start += half;
            length -= half;
        } else {
            length = half;
        }
    }
    let window = numbers.get(start..start + length).unwrap_or(&[]);
    start
        + match kernel.0 {
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "calls code for instructions that the compiler cannot know to be there")]
            // SAFETY: a `Kernel` of this set exists only where `available` found its instructions.
            Set::Avx2 => unsafe { x86::count_avx2(window, value) },
            #[cfg(target_arch = "x86_64")]
            #[expect(unsafe_code, reason = "calls code for instructions that the compiler cannot know to be there")]
            // SAFETY: a `Kernel` of this set exists only where `available` found its instructions.
            Set::Avx512 => unsafe { x86::count_avx512(window, value) },
            Set::Plain => plain_count(window, value),
        }
}

#[inline(always)]
fn plain_combine<const W: usize>(rows: &[[u64; W]], picks: &[u32], mask: &mut [u64; W]) -> bool {
    let mut all = *mask;
    for &pick in picks {
        match rows.get(pick as usize) {
            Some(row) => all.iter_mut().zip(row).for_each(|(word, row)| *word &= row),
            None => all = [0; W],
        }
    }
    *mask = all;
    all.iter().fold(0, |any, word| any | word) != 0
}

#[inline(always)]
fn plain_count(numbers: &[f64], value: f64) -> usize {
    let mut count = 0_u64;
    for number in numbers {
        count = count.wrapping_add(u64::from(*number < value));
    }
    // At most `COUNTED`.
    usize::try_from(count).unwrap_or(0)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[target_feature(enable = "avx2")]
    pub(super) fn combine_avx2<const W: usize>(rows: &[[u64; W]], picks: &[u32], mask: &mut [u64; W]) -> bool {
        super::plain_combine(rows, picks, mask)
    }

    #[target_feature(enable = "avx512f,avx512vl")]
    pub(super) fn combine_avx512<const W: usize>(rows: &[[u64; W]], picks: &[u32], mask: &mut [u64; W]) -> bool {
        super::plain_combine(rows, picks, mask)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn count_avx2(numbers: &[f64], value: f64) -> usize {
        super::plain_count(numbers, value)
    }

    #[target_feature(enable = "avx512f,avx512vl")]
    pub(super) fn count_avx512(numbers: &[f64], value: f64) -> usize {
        super::plain_count(numbers, value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check<const W: usize>(words: &[u64], picks: &[u32]) -> Result<(), TestCaseError> {
        let rows = words.as_chunks::<W>().0;
        let mut expected = [u64::MAX; W];
        let left = plain_combine(rows, picks, &mut expected);
        prop_assert_eq!(left, expected.iter().any(|word| *word != 0));
        for kernel in Kernel::available() {
            let mut mask = [u64::MAX; W];
            prop_assert_eq!(combine(kernel, rows, picks, &mut mask), left, "{:?}", kernel);
            prop_assert_eq!(mask, expected, "{:?}", kernel);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn every_instruction_set_combines_rows_alike(
            words in prop::collection::vec(any::<u64>(), 0..80), picks in prop::collection::vec(0..12_u32, 0..8),
        ) {
            check::<1>(&words, &picks)?;
            check::<2>(&words, &picks)?;
            check::<4>(&words, &picks)?;
            check::<8>(&words, &picks)?;
        }

        #[test]
        fn every_instruction_set_ranks_alike(mut numbers in prop::collection::vec(-50..50_i32, 0..300), value in -60..60_i32) {
            numbers.sort_unstable();
            let numbers: Vec<f64> = numbers.into_iter().map(f64::from).collect();
            let value = f64::from(value);
            for kernel in Kernel::available() {
                prop_assert_eq!(rank(kernel, &numbers, value), numbers.partition_point(|number| *number < value));
            }
        }
    }
}
