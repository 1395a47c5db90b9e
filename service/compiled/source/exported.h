#pragma once

// Everything else stays inside the library.
#define EXPORTED extern "C" __attribute__((visibility("default")))
