// The end of a generator that cannot go on.
#pragma once

#include <string>

// Says why in one line of standard output and ends the program.
[[noreturn]] void fail(const std::string &why);

// The same with what the system says about its last refusal.
[[noreturn]] void fail_by_system(const std::string &what);
