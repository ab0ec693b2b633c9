"""The generated module loads the real library."""

import unittest

import malai_ffi


class Version(unittest.TestCase):
    def test_the_library_says_its_version(self):
        self.assertRegex(malai_ffi.version(), r"^\d+\.\d+\.\d+$")


if __name__ == "__main__":
    unittest.main()
