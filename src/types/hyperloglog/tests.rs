use super::self_test::{check_estimates, check_registers};
use super::*;
use proptest::prelude::*;

#[test]
fn sparse_and_dense_agree() {
    check_registers(1, 20).unwrap();
    check_estimates(1, 3000, 100_000).unwrap();
}

#[test]
fn refuses_what_is_none() {
    assert_eq!(validate(b"HYLL"), Err(Invalid::NotOne));
    assert_eq!(validate(&[b"HYLL\x00".as_slice(), &[0; 20]].concat()), Err(Invalid::NotOne));
    let mut cut = create();
    cut.pop();
    assert_eq!(registers(&cut).unwrap_err(), Invalid::Corrupted);
    assert_eq!(count(&cut).unwrap_err(), Invalid::Corrupted);
}

#[test]
fn a_merge_keeps_the_larger_of_each_register() {
    let (mut left, mut right) = (create(), create());
    for number in 0..500u32 {
        add(&mut left, &number.to_le_bytes(), 3000).unwrap();
        add(&mut right, &(number + 250).to_le_bytes(), 3000).unwrap();
    }
    let mut union = registers(&left).unwrap();
    merge_from(&mut union, &right).unwrap();
    store(&mut left, &union, false, 3000).unwrap();
    assert_eq!(registers(&left).unwrap(), union);
    assert!((700..800).contains(&count(&left).unwrap()));
}

proptest! {
    /// What a client stores with SET may be anything.
    #[test]
    fn any_bytes_are_survived(
        encoding in 0u8..2,
        registers_of in proptest::collection::vec(any::<u8>(), 0..40),
        elements in proptest::collection::vec(any::<u16>(), 0..40),
    ) {
        let mut bytes = header(encoding);
        bytes.extend(registers_of);
        if validate(&bytes).is_ok() {
            for element in elements {
                let _ = add(&mut bytes, &element.to_le_bytes(), 3000);
            }
            let _ = (count(&bytes), registers(&bytes), describe(&bytes), make_dense(&mut bytes));
        }
    }
}
