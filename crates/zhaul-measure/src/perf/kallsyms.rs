//! The kernel's functions by address: `/proc/kallsyms`.

use std::fs;
use std::sync::OnceLock;

use super::Error;

/// The functions of the running kernel and its modules, in the order of their addresses.
#[derive(Debug)]
pub struct Symbols {
    /// All names, one after the other.
    names: String,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    name_at: u32,
    name_len: u16,
    global: bool,
}

/// A function, and where in it an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The function.
    pub name: &'a str,
    /// Where it begins.
    pub address: u64,
    /// Bytes from there.
    pub offset: u64,
}

impl Symbols {
    /// Reads those of the running kernel.
    ///
    /// # Errors
    /// [`Error::SymbolsHidden`] if this process sees zeros for addresses.
    pub fn load() -> Result<Self, Error> {
        let text = fs::read("/proc/kallsyms")
            .map_err(|error| Error::io("reading /proc/kallsyms", error))?;
        Self::parse(&String::from_utf8_lossy(&text)).ok_or(Error::SymbolsHidden)
    }

    /// Those of the running kernel, read once. Modules that are loaded later are not in it.
    ///
    /// # Errors
    /// As [`Symbols::load`].
    pub fn shared() -> Result<&'static Self, Error> {
        static SHARED: OnceLock<Symbols> = OnceLock::new();
        match SHARED.get() {
            Some(symbols) => Ok(symbols),
            None => {
                let symbols = Self::load()?;
                Ok(SHARED.get_or_init(|| symbols))
            }
        }
    }

    /// Reads the format of `/proc/kallsyms`: `address type name [module]` in each line. Data and
    /// lines that do not have this form are left out. `None` if no function has an address.
    pub fn parse(text: &str) -> Option<Self> {
        let mut symbols = Self {
            names: String::new(),
            entries: Vec::new(),
        };
        for line in text.lines() {
            symbols.add(line);
        }
        // Aliases of one address: the first in the file stays first.
        symbols.entries.sort_by_key(|entry| entry.address);
        (!symbols.entries.is_empty()).then_some(symbols)
    }

    fn add(&mut self, line: &str) -> Option<()> {
        let mut words = line.split_ascii_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let kind = words.next()?;
        let name = words.next()?;
        if address == 0 || !matches!(kind, "t" | "T" | "w" | "W") {
            return None;
        }
        self.entries.push(Entry {
            address,
            name_at: u32::try_from(self.names.len()).ok()?,
            name_len: u16::try_from(name.len()).ok()?,
            global: kind == "T" || kind == "W",
        });
        self.names.push_str(name);
        Some(())
    }

    /// The function that an address is in, or rather the last that begins at or before it.
    pub fn lookup(&self, address: u64) -> Option<Symbol<'_>> {
        let after = self
            .entries
            .partition_point(|entry| entry.address <= address);
        let last = self.entries.get(after.checked_sub(1)?)?;
        // Of several names of one address the first.
        let first = self
            .entries
            .partition_point(|entry| entry.address < last.address);
        let entry = self.entries.get(first)?;
        Some(Symbol {
            name: self.name(*entry),
            address: entry.address,
            offset: address - entry.address,
        })
    }

    /// Where the function of this name begins; the global one if there are several.
    pub fn address_of(&self, name: &str) -> Option<u64> {
        let mut found = None;
        for entry in self
            .entries
            .iter()
            .filter(|&&entry| self.name(entry) == name)
        {
            if entry.global {
                return Some(entry.address);
            }
            found.get_or_insert(entry.address);
        }
        found
    }

    /// The addresses of the function of this name, up to the next function.
    pub fn range_of(&self, name: &str) -> Option<std::ops::Range<u64>> {
        let start = self.address_of(name)?;
        let after = self.entries.partition_point(|entry| entry.address <= start);
        let end = self
            .entries
            .get(after)
            .map_or(u64::MAX, |entry| entry.address);
        Some(start..end)
    }

    /// Functions in all.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Never true of symbols that could be had.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn name(&self, entry: Entry) -> &str {
        let start = entry.name_at as usize;
        &self.names[start..start + usize::from(entry.name_len)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "\
ffffffff81000100 T _copy_to_iter
ffffffff81000000 t helper
ffffffff81000000 T alias_of_helper
ffffffff81000080 t twice
ffffffff81000200 T twice
ffffffff81000300 D data
ffffffffc0000000 t in_module\t[tls]
";

    #[test]
    fn an_address_belongs_to_the_function_before_it() {
        let symbols = Symbols::parse(TEXT).unwrap();
        let name = |address| {
            symbols
                .lookup(address)
                .map(|symbol| (symbol.name, symbol.offset))
        };
        assert_eq!(name(0xffff_ffff_8100_0110), Some(("_copy_to_iter", 0x10)));
        assert_eq!(name(0xffff_ffff_8100_0000), Some(("helper", 0)));
        assert_eq!(name(0xffff_ffff_c000_0001), Some(("in_module", 1)));
        assert_eq!(name(0x1000), None);
    }

    #[test]
    fn of_equal_names_the_global_one_is_found() {
        let symbols = Symbols::parse(TEXT).unwrap();
        assert_eq!(symbols.address_of("twice"), Some(0xffff_ffff_8100_0200));
        assert_eq!(symbols.address_of("in_module"), Some(0xffff_ffff_c000_0000));
        let range = symbols.range_of("_copy_to_iter").unwrap();
        assert_eq!(range, 0xffff_ffff_8100_0100..0xffff_ffff_8100_0200);
        assert_eq!(symbols.address_of("data"), None, "data is no function");
        assert_eq!(symbols.len(), 6);
    }

    #[test]
    fn zeros_for_addresses_are_no_symbols() {
        assert!(Symbols::parse("0000000000000000 T _copy_to_iter\n").is_none());
        assert!(Symbols::parse("").is_none());
    }

    #[test]
    fn this_kernels_symbols_are_read_or_said_to_be_hidden() {
        match Symbols::load() {
            Ok(symbols) => {
                let address = symbols.address_of("vfs_read").unwrap();
                assert_eq!(symbols.lookup(address + 1).unwrap().name, "vfs_read");
            }
            Err(error) => assert!(matches!(error, Error::SymbolsHidden), "{error}"),
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([0-9a-f]{0,20} [tTD]? ?[a-z_\u{e9}]{0,9}(\t\\[x\\])?\n|\\PC{0,20}\n){0,9}",
                          address in any::<u64>()) {
            if let Some(symbols) = Symbols::parse(&text) {
                let _ = symbols.lookup(address);
            }
        }
    }
}
