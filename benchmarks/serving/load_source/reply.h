// Where an HTTP answer ends. Its body is counted and not kept.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

class Reply {
public:
    // The next bytes of the answer; whether it is complete with them. What is no HTTP/1 answer ends the program.
    bool take(std::string_view piece);

    // Of an answer that is complete.
    int status() const { return status_; }

    // For the next answer.
    void clear();

private:
    void read_head(std::string_view head);
    void read_field(std::string_view name, std::string_view value);
    bool take_chunks(std::string_view piece);
    bool end_line();

    std::string line_;   // of a head, or of a line between chunks: what has arrived of it
    uint64_t left_ = 0;  // bytes of the body, or of a chunk and the end of its line
    int status_ = 0;
    bool in_body_ = false, sized_ = false, chunked_ = false, last_chunk_ = false;
};
