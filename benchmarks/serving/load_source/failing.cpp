#include "failing.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// A server's bytes may be anything, and what is said has to stay one line of JSON.
static std::string quoted(const std::string &text) {
    std::string safe = "\"";
    for (const char letter : text) {
        if (letter == '"' || letter == '\\') safe += '\\';
        safe += letter < 0x20 || letter > 0x7E ? ' ' : letter;
    }
    return safe + '"';
}

void fail(const std::string &why) {
    std::printf("{\"failed\": %s}\n", quoted(why).c_str());
    std::fflush(stdout);
    std::exit(1);
}

void fail_by_system(const std::string &what) { fail(what + ": " + std::strerror(errno)); }
