#include "driver/config/value_checks.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr size_t kMaxQuotedBytes = 80;
constexpr char kHostPortForms[] = "HOST:PORT or [IPv6]:PORT";
constexpr char kTunnelForms[] = "HOST:PORT, HOST:, :PORT or [IPv6]:PORT";
constexpr char kUrlForm[] = "http://HOST[:PORT]/ or https://HOST[:PORT]/, with a path if needed";

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

absl::Status CheckLength(absl::string_view text, size_t limit) {
  if (text.size() <= limit) return absl::OkStatus();
  return Invalid(text.size(), " bytes are too long (allowed: up to ", limit, ")");
}

bool IsUtf8Tail(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }
bool IsControl(char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); }
bool IsAlnum(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)); }
bool IsDigit(char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); }

bool IsAlnumOr(char c, absl::string_view others) {
  return IsAlnum(c) || absl::StrContains(others, c);
}

bool ConsistsOfAlnumAnd(absl::string_view text, absl::string_view others) {
  return std::all_of(text.begin(), text.end(), [others](char c) { return IsAlnumOr(c, others); });
}

struct HostPort {
  absl::string_view host;  // without brackets; empty: left out
  absl::string_view port;  // empty: left out
  bool colon;
};

bool IsHostName(absl::string_view host) {
  return host.size() <= kMaxHostBytes && host.front() != '-' && host.front() != '.' &&
         ConsistsOfAlnumAnd(host, ".-_");
}

bool IsIpv6(absl::string_view text) {
  in6_addr address;
  return inet_pton(AF_INET6, std::string(text).c_str(), &address) == 1;
}

bool IsPort(absl::string_view port) {
  int number;
  return port.size() <= 5 && std::all_of(port.begin(), port.end(), IsDigit) &&
         absl::SimpleAtoi(port, &number) && number >= 1 && number <= 65535;
}

std::optional<HostPort> SplitBracketed(absl::string_view text) {
  const size_t end = text.find(']');
  if (end == absl::string_view::npos || !IsIpv6(text.substr(1, end - 1))) return std::nullopt;
  absl::string_view rest = text.substr(end + 1);
  const bool colon = absl::ConsumePrefix(&rest, ":");
  if (!colon && !rest.empty()) return std::nullopt;
  return HostPort{text.substr(1, end - 1), rest, colon};
}

std::optional<HostPort> SplitPlain(absl::string_view text) {
  const size_t end = std::min(text.find(':'), text.size());
  const absl::string_view host = text.substr(0, end);
  if (!host.empty() && !IsHostName(host)) return std::nullopt;
  const bool colon = end < text.size();
  return HostPort{host, colon ? text.substr(end + 1) : absl::string_view(), colon};
}

// Nothing when a part that is there is malformed.
std::optional<HostPort> SplitHostPort(absl::string_view text) {
  const auto split = absl::StartsWith(text, "[") ? SplitBracketed(text) : SplitPlain(text);
  if (!split || (!split->port.empty() && !IsPort(split->port))) return std::nullopt;
  return split;
}

bool ConsumeHttpScheme(absl::string_view& url) {
  for (const absl::string_view scheme : {"http://", "https://"}) {
    if (!absl::StartsWithIgnoreCase(url, scheme)) continue;
    url.remove_prefix(scheme.size());
    return true;
  }
  return false;
}

// What follows one of these may be a password or a token.
std::string ShownUrl(absl::string_view url) {
  if (url.find_first_of("@?#") == absl::string_view::npos) return Quoted(url);
  return "the URL (not shown, it may hold a password)";
}

// RFC 3986 pchar and '/'.
bool IsUrlPath(absl::string_view path) { return ConsistsOfAlnumAnd(path, "-._~%!$&'()*+,;=:@/"); }

bool IsClassNameByte(char c) {
  return IsAlnumOr(c, "_$./") || static_cast<unsigned char>(c) >= 0x80;
}

}  // namespace

std::string Quoted(absl::string_view text) {
  if (text.size() <= kMaxQuotedBytes) return absl::StrCat("\"", absl::Utf8SafeCEscape(text), "\"");
  size_t end = kMaxQuotedBytes;
  while (end > 0 && IsUtf8Tail(text[end])) --end;
  return absl::StrCat("\"", absl::Utf8SafeCEscape(text.substr(0, end)), "...\"");
}

absl::Status CheckAbsolutePath(absl::string_view path) {
  RETURN_IF_ERROR(CheckLength(path, kMaxPathBytes));
  if (!absl::StartsWith(path, "/")) {
    return Invalid(Quoted(path), " is not an absolute path; start it with '/'");
  }
  for (const absl::string_view part : absl::StrSplit(path, '/')) {
    if (part == "..") return Invalid(Quoted(path), " contains '..'; write the path without it");
  }
  return absl::OkStatus();
}

absl::Status CheckControllerUrl(absl::string_view url) {
  RETURN_IF_ERROR(CheckLength(url, kMaxUrlBytes));
  absl::string_view rest = url;
  if (!ConsumeHttpScheme(rest)) {
    return Invalid(ShownUrl(url), " is not an http or https URL; write ", kUrlForm);
  }
  const size_t authority_end = std::min(rest.find_first_of("/?#\\"), rest.size());
  const absl::string_view authority = rest.substr(0, authority_end);
  const absl::string_view path = rest.substr(authority_end);
  if (absl::StrContains(authority, '@')) {
    return Invalid(
        "contains a user name or password; remove it (the agent's secret goes into "
        "agent.secret_file or JENKINS_SECRET)");
  }
  if (path.find_first_of("?#") != absl::string_view::npos) {
    return Invalid("has a query or fragment ('?' or '#'); give the controller's root only: ",
                   kUrlForm);
  }
  const auto host_port = SplitHostPort(authority);
  if (!host_port || host_port->host.empty() || (host_port->colon && host_port->port.empty())) {
    return Invalid(ShownUrl(url), " has no valid host or port; write ", kUrlForm);
  }
  if (!IsUrlPath(path)) {
    return Invalid(ShownUrl(url),
                   " contains a character that a URL's path cannot hold; write it as "
                   "%XX");
  }
  return absl::OkStatus();
}

absl::Status CheckAgentName(absl::string_view name) {
  RETURN_IF_ERROR(CheckLength(name, kMaxAgentNameBytes));
  if (name == "." || name == "..") return Invalid(Quoted(name), " is no name for an agent");
  if (absl::StripAsciiWhitespace(name) != name) {
    return Invalid(Quoted(name), " starts or ends with a blank; Jenkins knows no such agent");
  }
  constexpr absl::string_view kUnsafe = "?*/\\%!@#$^&|<>[]:;";
  for (const char c : name) {
    if (IsControl(c)) return Invalid(Quoted(name), " contains a control character");
    if (absl::StrContains(kUnsafe, c)) {
      return Invalid(Quoted(name), " contains '", absl::string_view(&c, 1),
                     "'; Jenkins allows none of ", kUnsafe, " in an agent's name");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckHostName(absl::string_view name) {
  RETURN_IF_ERROR(CheckLength(name, kMaxHostNameBytes));
  for (const absl::string_view label : absl::StrSplit(name, '.')) {
    if (label.empty() || label.front() == '-' || label.back() == '-' ||
        !ConsistsOfAlnumAnd(label, "-")) {
      return Invalid(Quoted(name),
                     " is no name for a host (allowed: letters, digits and '-', with single dots "
                     "between, no '-' at an end)");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckIpAddress(absl::string_view address) {
  in_addr v4;
  if (inet_pton(AF_INET, std::string(address).c_str(), &v4) == 1 || IsIpv6(address)) {
    return absl::OkStatus();
  }
  return Invalid(Quoted(address), " is not an IPv4 or IPv6 address");
}

absl::Status CheckHostPort(absl::string_view text) {
  const auto split = SplitHostPort(text);
  if (!split || split->host.empty() || split->port.empty()) {
    return Invalid(Quoted(text), " is not ", kHostPortForms, " (ports: 1 to 65535)");
  }
  return absl::OkStatus();
}

absl::Status CheckTunnel(absl::string_view text) {
  const auto split = SplitHostPort(text);
  if (!split || !split->colon || (split->host.empty() && split->port.empty())) {
    return Invalid(Quoted(text), " is not ", kTunnelForms, " (ports: 1 to 65535)");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ListenAddress(absl::string_view text) {
  constexpr char kForms[] =
      "PORT, ADDRESS:PORT or [IPv6 address]:PORT with a port from 1024 to 65535";
  const bool only_port = !text.empty() && std::all_of(text.begin(), text.end(), IsDigit);
  const std::string full = absl::StrCat(only_port ? ":" : "", text);
  const auto split = SplitHostPort(full);
  int port = 0;
  // Whoever listens is nobody, who gets no lower ports.
  if (!split || !absl::SimpleAtoi(split->port, &port) || port < 1024) {
    return Invalid(Quoted(text), " is not ", kForms);
  }
  if (split->host.empty()) return absl::StrCat("127.0.0.1:", port);
  if (!CheckIpAddress(split->host).ok()) return Invalid(Quoted(text), " is not ", kForms);
  return IsIpv6(split->host) ? absl::StrCat("[", split->host, "]:", port)
                             : absl::StrCat(split->host, ":", port);
}

absl::Status CheckHeader(absl::string_view name, absl::string_view value) {
  if (name.empty() || !ConsistsOfAlnumAnd(name, "!#$%&'*+-.^_`|~")) {  // RFC 9110 token
    return Invalid("is no name for an HTTP header (allowed: letters, digits and !#$%&'*+-.^_`|~)");
  }
  if (std::any_of(value.begin(), value.end(), [](char c) { return IsControl(c) && c != '\t'; })) {
    return Invalid("its value contains a line break or another control character");
  }
  return absl::OkStatus();
}

absl::Status CheckInstanceIdentity(absl::string_view text) {
  RETURN_IF_ERROR(CheckLength(text, kMaxIdentityBytes));
  std::string decoded;
  if (!ConsistsOfAlnumAnd(text, "+/=") || !absl::Base64Unescape(text, &decoded)) {
    return Invalid(
        "is not base64 on one line; copy the X-Instance-Identity header of the "
        "controller's answer");
  }
  return absl::OkStatus();
}

absl::Status CheckDuration(absl::string_view text, absl::Duration least) {
  constexpr absl::Duration kLongest = absl::Hours(24 * 7);
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration)) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(text), " is no duration; write it like \"90s\", \"5m\" or \"1h30m\""));
  }
  if (duration < least || duration > kLongest) {
    return absl::InvalidArgumentError(
        absl::StrCat(text, " is out of range (allowed: ", absl::FormatDuration(least), " to ",
                     absl::FormatDuration(kLongest), ")"));
  }
  return absl::OkStatus();
}

absl::Status CheckJavaVersion(absl::string_view version) {
  int number;
  const bool plain = !version.empty() && version.size() <= 2 && version.front() != '0' &&
                     std::all_of(version.begin(), version.end(), IsDigit);
  if (!plain || !absl::SimpleAtoi(version, &number) || number < 8) {
    return Invalid(Quoted(version), " is not a Java version (allowed: 8 to 99, such as 17)");
  }
  return absl::OkStatus();
}

absl::Status CheckJavaClass(absl::string_view name) {
  if (name.empty() || IsDigit(name.front()) ||
      !std::all_of(name.begin(), name.end(), IsClassNameByte)) {
    return Invalid(Quoted(name), " is not a Java class name, such as org.example.Main");
  }
  return absl::OkStatus();
}

}  // namespace jenkins_agent
