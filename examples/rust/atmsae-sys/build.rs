// SPDX-License-Identifier: MIT
//! Finds libatmsae: in the folder that ATMSAE_LIB_DIR names, else where pkg-config says.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=ATMSAE_LIB_DIR");
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
    let dirs = match std::env::var("ATMSAE_LIB_DIR") {
        Ok(dir) => format!("-L{dir}"),
        Err(_) => {
            let hint = "set ATMSAE_LIB_DIR to the folder of libatmsae.so";
            let query = Command::new("pkg-config").args(["--libs-only-L", "atmsae"]).output();
            let output = query.unwrap_or_else(|e| panic!("pkg-config cannot be run ({e}); {hint}"));
            assert!(output.status.success(), "pkg-config knows no atmsae; install it, or {hint}");
            String::from_utf8(output.stdout).expect("pkg-config printed no text")
        }
    };
    for dir in dirs.split_whitespace().filter_map(|flag| flag.strip_prefix("-L")) {
        println!("cargo:rustc-link-search=native={dir}");
    }
    println!("cargo:rustc-link-lib=dylib=atmsae");
}
