//! Moving what lies in an allocation to another, for who wants some pages to become free.

/// Whether what lies at an address is to lie elsewhere. The address is that of an allocation.
pub type Wants<'a> = dyn Fn(*const u8) -> bool + 'a;

/// Moves a boxed value if it is wanted; says whether it was. `empty` makes one to leave in its place.
pub(super) fn boxed<T>(value: &mut Box<T>, wants: &Wants<'_>, empty: impl FnOnce() -> T) -> bool {
    let moves = wants((&raw const **value).cast());
    if moves {
        let mut new = Box::new(empty());
        std::mem::swap(&mut *new, &mut **value);
        *value = new;
    }
    moves
}

/// The same for a boxed slice.
pub(super) fn slice<T>(values: &mut Box<[T]>, wants: &Wants<'_>) -> bool {
    // Without values there is no allocation to ask for.
    let moves = !values.is_empty() && wants(values.as_ptr().cast());
    if moves {
        // Not collected from the old one: that would be done where it is.
        let mut new = Vec::with_capacity(values.len());
        new.append(&mut std::mem::take(values).into_vec());
        *values = new.into_boxed_slice();
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_lies_elsewhere_and_is_the_same() {
        for wanted in [false, true] {
            let (mut value, mut values) = (Box::new(vec![7]), vec![String::from("a"); 5].into_boxed_slice());
            let before = (&raw const *value, values.as_ptr());
            assert_eq!(boxed(&mut value, &|_| wanted, Vec::new), wanted);
            assert_eq!(slice(&mut values, &|_| wanted), wanted);
            assert_eq!((&raw const *value == before.0, values.as_ptr() == before.1), (!wanted, !wanted));
            assert_eq!((&**value, &*values), (&[7][..], &vec![String::from("a"); 5][..]));
            let mut none: Box<[String]> = Box::default();
            assert!(!slice(&mut none, &|_| panic!("there is nothing to ask for")));
        }
    }
}
