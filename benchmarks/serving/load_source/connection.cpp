#include "connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <ctime>

#include "failing.h"

constexpr size_t BLOCK = size_t{1} << 18;

double now_s() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

template <class Option>
static void set_option(int descriptor, int level, int name, const Option &value) {
    if (setsockopt(descriptor, level, name, &value, sizeof value) != 0) fail_by_system("a socket takes no option");
}

// A socket with its time-outs, which hold for connecting too.
static int opened(int family, double patience_s) {
    const int descriptor = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) fail_by_system("no socket");
    const double whole = std::floor(patience_s);
    const timeval time{static_cast<time_t>(whole), static_cast<suseconds_t>((patience_s - whole) * 1e6)};
    set_option(descriptor, SOL_SOCKET, SO_RCVTIMEO, time);
    set_option(descriptor, SOL_SOCKET, SO_SNDTIMEO, time);
    set_option(descriptor, IPPROTO_TCP, TCP_NODELAY, 1);
    return descriptor;
}

struct Address {
    sockaddr_storage bytes;
    socklen_t length;
};

// No name is looked up: an address may only mean this machine.
static Address loopback(const std::string &host, uint16_t port) {
    Address address{};
    auto &four = reinterpret_cast<sockaddr_in &>(address.bytes);
    auto &six = reinterpret_cast<sockaddr_in6 &>(address.bytes);
    if (inet_pton(AF_INET, host.c_str(), &four.sin_addr) == 1) {
        four.sin_family = AF_INET;
        four.sin_port = htons(port);
        address.length = sizeof four;
        if (ntohl(four.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET) return address;
    } else if (inet_pton(AF_INET6, host.c_str(), &six.sin6_addr) == 1) {
        six.sin6_family = AF_INET6;
        six.sin6_port = htons(port);
        address.length = sizeof six;
        if (IN6_IS_ADDR_LOOPBACK(&six.sin6_addr)) return address;
    }
    fail("'" + host + "' is not the loopback interface");
}

// A connected socket, or -1.
static int connected(const Address &address, double patience_s) {
    const int descriptor = opened(address.bytes.ss_family, patience_s);
    if (connect(descriptor, reinterpret_cast<const sockaddr *>(&address.bytes), address.length) == 0) return descriptor;
    const int why = errno;
    close(descriptor);
    errno = why;
    return -1;
}

Connection::Connection(const Order &order) {
    const auto port = static_cast<uint16_t>(order.port);
    const bool named = order.host == "localhost";  // the one name that always means this machine
    descriptor_ = connected(loopback(named ? "127.0.0.1" : order.host, port), order.patience_s);
    if (descriptor_ < 0 && named) descriptor_ = connected(loopback("::1", port), order.patience_s);
    if (descriptor_ < 0) fail_by_system("connecting to " + order.host);
}

Connection::~Connection() { close(descriptor_); }

[[noreturn]] static void fail_transfer(const std::string &what) {
    if (errno == EAGAIN) fail(what + " took too long");
    fail_by_system(what);
}

void Connection::send(const std::string &request, double since_s) {
    since_s_ = since_s;
    under_way_ = true;
    reply_.clear();
    for (size_t sent = 0; sent < request.size();) {
        const ssize_t count = ::send(descriptor_, request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail_transfer("sending a request");
        sent += static_cast<size_t>(count);
    }
}

bool Connection::receive(bool waiting) {
    static char block[BLOCK];
    const ssize_t count = recv(descriptor_, block, BLOCK, waiting ? 0 : MSG_DONTWAIT);
    if (count == 0) fail("the server closed a connection");
    if (count < 0 && (errno == EINTR || (!waiting && errno == EAGAIN))) return false;
    if (count < 0) fail_transfer("receiving an answer");
    if (!under_way_) fail("an answer came that nothing was asked for");
    const bool complete = reply_.take({block, static_cast<size_t>(count)});
    under_way_ = !complete;
    return complete;
}
