#include "reply.h"

#include <strings.h>

#include <algorithm>
#include <charconv>

#include "failing.h"

constexpr std::string_view LINE_END = "\r\n", HEAD_END = "\r\n\r\n", BLANKS = " \t";
constexpr size_t LONGEST_LINE = 65536, STATUS_AT = 9, STATUS_DIGITS = 3, SHOWN = 200;
constexpr char TOO_LONG[] = "an answer is longer than it says";
constexpr uint64_t LONGEST_BODY = uint64_t{1} << 40;

static bool is(std::string_view name, std::string_view wanted) {
    return name.size() == wanted.size() && strncasecmp(name.data(), wanted.data(), wanted.size()) == 0;
}

static std::string_view trimmed(std::string_view text) {
    const size_t first = text.find_first_not_of(BLANKS);
    return first == text.npos ? std::string_view() : text.substr(first, text.find_last_not_of(BLANKS) - first + 1);
}

// A number that is all of a text.
template <class Number>
static bool read_number(std::string_view text, int base, Number &value) {
    const auto read = std::from_chars(text.data(), text.data() + text.size(), value, base);
    return !text.empty() && read.ec == std::errc() && read.ptr == text.data() + text.size();
}

void Reply::clear() {
    line_.clear();
    left_ = 0;
    in_body_ = sized_ = chunked_ = last_chunk_ = false;
}

bool Reply::take(std::string_view piece) {
    std::string joined;  // nearly always a head comes whole, and nothing is copied
    if (!in_body_) {
        if (!line_.empty()) {
            joined = line_.append(piece);
            piece = joined;
        }
        const size_t end = piece.find(HEAD_END);
        if (std::min(end, piece.size()) > LONGEST_LINE) fail("the head of an answer does not end");
        if (end == piece.npos) {
            line_ = piece;
            return false;
        }
        line_.clear();
        read_head(piece.substr(0, end));
        piece.remove_prefix(end + HEAD_END.size());
        in_body_ = true;
    }
    if (chunked_) return take_chunks(piece);
    if (piece.size() > left_) fail(TOO_LONG);
    left_ -= piece.size();
    return left_ == 0;
}

void Reply::read_head(std::string_view head) {
    const std::string_view whole = head;
    const std::string_view status = head.substr(std::min(STATUS_AT, head.size()), STATUS_DIGITS);
    if (head.substr(0, 7) != "HTTP/1." || status.size() != STATUS_DIGITS || !read_number(status, 10, status_)) {
        fail("an answer does not begin with a status: " + std::string(whole.substr(0, SHOWN)));
    }
    size_t end;
    while ((end = head.find(LINE_END)) != head.npos) {
        head.remove_prefix(end + LINE_END.size());
        const std::string_view line = head.substr(0, head.find(LINE_END));
        const size_t colon = line.find(':');
        if (colon != line.npos) read_field(line.substr(0, colon), trimmed(line.substr(colon + 1)));
    }
    if (!sized_ && !chunked_) {
        fail("an answer says neither its length nor that it comes in chunks: " + std::string(whole.substr(0, SHOWN)));
    }
}

void Reply::read_field(std::string_view name, std::string_view value) {
    if (is(name, "transfer-encoding")) chunked_ = is(value, "chunked");
    if (!is(name, "content-length")) return;
    sized_ = true;
    if (!read_number(value, 10, left_) || left_ > LONGEST_BODY) fail("an answer has no length: " + std::string(value));
}

bool Reply::take_chunks(std::string_view piece) {
    while (!piece.empty()) {
        if (left_ > 0) {
            const uint64_t here = std::min<uint64_t>(left_, piece.size());
            left_ -= here;
            piece.remove_prefix(here);
            continue;
        }
        const size_t end = piece.find('\n');
        line_.append(piece.substr(0, end));
        if (line_.size() > LONGEST_LINE) fail("a line between the chunks of an answer does not end");
        if (end == piece.npos) return false;
        piece.remove_prefix(end + 1);
        if (!end_line()) continue;
        if (!piece.empty()) fail(TOO_LONG);
        return true;
    }
    return false;
}

// A line between chunks is the next one's size, or, behind the last one, a field; an empty field ends the answer.
bool Reply::end_line() {
    if (!line_.empty() && line_.back() == '\r') line_.pop_back();
    if (last_chunk_) {
        const bool over = line_.empty();
        line_.clear();
        return over;
    }
    const std::string_view line = line_, size = trimmed(line.substr(0, line.find(';')));
    if (!read_number(size, 16, left_) || left_ > LONGEST_BODY) fail("a chunk of an answer has no size: " + line_);
    last_chunk_ = left_ == 0;
    if (!last_chunk_) left_ += LINE_END.size();
    line_.clear();
    return false;
}
