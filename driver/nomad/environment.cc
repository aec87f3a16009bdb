#include "driver/nomad/environment.h"

#include <algorithm>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "driver/nomad/constraint.h"

namespace jenkins_agent::nomad {
namespace {

constexpr char kDefaultAddress[] = "http://127.0.0.1:4646";

std::string WithoutUser(absl::string_view url) {
  const size_t host = url.find("://") + 3;
  const size_t end = std::min(url.find('/', host), url.size());
  const size_t at = url.substr(0, end).rfind('@');
  if (at == absl::string_view::npos) return std::string(url);
  return absl::StrCat(url.substr(0, host), url.substr(at + 1));
}

absl::Status ReadAddress(std::string address, Endpoint& endpoint) {
  absl::string_view path = address;
  endpoint.shown = address;
  if (absl::ConsumePrefix(&path, "unix://")) {
    if (!absl::StartsWith(path, "/")) {
      return absl::InvalidArgumentError("NOMAD_ADDR: unix:// wants an absolute path");
    }
    endpoint.unix_socket = std::string(path);
    endpoint.url = "http://localhost";
    return absl::OkStatus();
  }
  if (!absl::StartsWith(address, "http://") && !absl::StartsWith(address, "https://")) {
    return absl::InvalidArgumentError(
        "NOMAD_ADDR wants http://HOST:PORT, https://HOST:PORT or unix:///PATH");
  }
  while (absl::EndsWith(address, "/")) address.pop_back();
  endpoint.url = address;
  endpoint.shown = WithoutUser(address);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Endpoint> EndpointFromEnvironment(
    const std::function<std::string(const char*)>& get) {
  Endpoint endpoint;
  const std::string address = get("NOMAD_ADDR");
  const absl::Status status = ReadAddress(address.empty() ? kDefaultAddress : address, endpoint);
  if (!status.ok()) return status;
  if (address.empty()) endpoint.shown += " (NOMAD_ADDR is not set)";
  endpoint.token = get("NOMAD_TOKEN");
  endpoint.region = get("NOMAD_REGION");
  endpoint.name_space = get("NOMAD_NAMESPACE");
  endpoint.http_auth = get("NOMAD_HTTP_AUTH");
  endpoint.ca_file = get("NOMAD_CACERT");
  endpoint.ca_path = get("NOMAD_CAPATH");
  endpoint.client_cert = get("NOMAD_CLIENT_CERT");
  endpoint.client_key = get("NOMAD_CLIENT_KEY");
  endpoint.tls_server_name = get("NOMAD_TLS_SERVER_NAME");
  if (const std::string skip = get("NOMAD_SKIP_VERIFY"); !skip.empty()) {
    const std::optional<bool> parsed = ParseBool(skip);
    if (!parsed) return absl::InvalidArgumentError("NOMAD_SKIP_VERIFY wants true or false");
    endpoint.skip_verify = *parsed;
  }
  return endpoint;
}

}  // namespace jenkins_agent::nomad
