//! A solution of every exercise. They pass the laws; the book shows them behind a fold.

macro_rules! chapters {
    ($($chapter:ident $file:literal,)*) => {
        $(
            #[doc = concat!("Solutions of `", stringify!($chapter), "`.")]
            #[path = $file]
            pub mod $chapter;
        )*
    };
}

chapters! {
    ch01 "../solutions/ch01.rs",
    ch02 "../solutions/ch02.rs",
    ch03 "../solutions/ch03.rs",
    ch04 "../solutions/ch04.rs",
    ch05 "../solutions/ch05.rs",
    ch06 "../solutions/ch06.rs",
    ch07 "../solutions/ch07.rs",
    ch08 "../solutions/ch08.rs",
    ch09 "../solutions/ch09.rs",
    ch10 "../solutions/ch10.rs",
    ch11 "../solutions/ch11.rs",
    ch12 "../solutions/ch12.rs",
    ch13 "../solutions/ch13.rs",
    ch14 "../solutions/ch14.rs",
}
