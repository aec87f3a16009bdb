// Checks of single option values. Pure. Messages say what was found and what is allowed; the caller
// adds the option's path. No message repeats a value that may hold a secret.
#pragma once

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace jenkins_agent {

inline constexpr size_t kMaxPathBytes = 4095;  // PATH_MAX without the NUL
inline constexpr size_t kMaxUrlBytes = 2048;
inline constexpr size_t kMaxHostBytes = 253;       // RFC 1035
inline constexpr size_t kMaxHostNameBytes = 63;    // of a label, RFC 1123; the kernel has 64
inline constexpr size_t kMaxAgentNameBytes = 255;  // the controller keeps nodes/<name>/config.xml
inline constexpr size_t kMaxIdentityBytes = 8192;  // 392 for RSA-2048, 2736 for RSA-16384

// "text" for an error message: quoted, escaped, shortened.
std::string Quoted(absl::string_view text);

// Starts with '/' and has no ".." in it.
absl::Status CheckAbsolutePath(absl::string_view path);

// http(s)://HOST[:PORT][/path] without user, password, query and fragment.
absl::Status CheckControllerUrl(absl::string_view url);

// What the controller accepts as a node's name (hudson.model.Jenkins.checkGoodName).
absl::Status CheckAgentName(absl::string_view name);

// A name for a host, RFC 1123: labels of letters, digits and '-', with dots between. At most 63
// bytes, which the kernel (64) and every program accept.
absl::Status CheckHostName(absl::string_view name);

// An address of IPv4 or IPv6, no name.
absl::Status CheckIpAddress(absl::string_view address);

// HOST:PORT or [v6]:PORT.
absl::Status CheckHostPort(absl::string_view text);
// HOST:PORT, [v6]:PORT, and for a tunnel one of the two may be left out: HOST: or :PORT.
absl::Status CheckTunnel(absl::string_view text);

// Where to listen: PORT, :PORT, ADDRESS:PORT or [v6]:PORT, port 1024 to 65535, no name. Returns it
// with the loopback address for one that is left out.
absl::StatusOr<std::string> ListenAddress(absl::string_view text);

// One HTTP header: a token as its name, a value without control characters.
absl::Status CheckHeader(absl::string_view name, absl::string_view value);

// Base64 text on one line.
absl::Status CheckInstanceIdentity(absl::string_view text);

// A time as Nomad writes it ("90s", "5m", "1h30m"), from `least` to a week.
absl::Status CheckDuration(absl::string_view text, absl::Duration least);

// A Java feature version: "8" to "99".
absl::Status CheckJavaVersion(absl::string_view version);

// A class name as `java` takes it, with dots or slashes.
absl::Status CheckJavaClass(absl::string_view name);

}  // namespace jenkins_agent
