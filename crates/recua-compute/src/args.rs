//! [`args!`]: a kernel's arguments, written once: it makes the Rust structure that the host fills and the text of the structure that the
//! kernel declares.

/// Declares a structure of scalars (`u32`, `i32`, `f32`) for the arguments of a kernel. It is plain data, with the fields in this order and
/// without padding, which is how every kernel language lays out four-byte scalars. `WGSL` is the text of the same structure, called `Args`.
/// Another language would get a constant of its own, made from the same fields.
///
/// A crate that uses it must depend on bytemuck with the feature `derive`.
///
/// ```
/// recua_compute::args! {
///     /// What the kernel needs.
///     pub struct ScaleArgs {
///         /// Elements.
///         n: u32,
///         /// Multiplies each.
///         factor: f32,
///     }
/// }
/// assert_eq!(ScaleArgs::WGSL, "struct Args {\n    n: u32,\n    factor: f32,\n}\n");
/// let args = ScaleArgs { n: 2, factor: 0.5 };
/// assert_eq!(bytemuck::bytes_of(&args), [2, 0, 0, 0, 0, 0, 0, 0x3f]);
/// ```
#[macro_export]
macro_rules! args {
    (
        $(#[$about:meta])*
        $visibility:vis struct $name:ident {
            $($(#[$about_field:meta])* $field:ident: $ty:ident),+ $(,)?
        }
    ) => {
        $(#[$about])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        $visibility struct $name {
            $($(#[$about_field])* $visibility $field: $ty,)+
        }

        impl $name {
            /// The structure as WGSL declares it.
            $visibility const WGSL: &'static str = concat!(
                "struct Args {\n",
                $(concat!("    ", stringify!($field), ": ", stringify!($ty), ",\n"),)+
                "}\n"
            );
        }
    };
}

pub use args;
