// Where Nomad is and how to talk to it: Nomad's own environment variables, read as its CLI reads
// them (api/api.go). Pure.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace jenkins_agent::nomad {

struct Endpoint {
  std::string url;          // "https://nomad.example:4646", without a slash at the end; a secret if
                            // it has a user in it, as Go's http takes it
  std::string shown;        // NOMAD_ADDR for people, without user and password
  std::string unix_socket;  // path; then `url` only gives the scheme and the Host header
  std::string token;        // a secret: goes into a header and nowhere else
  std::string region, name_space;
  std::string http_auth;  // "user:password", a secret
  std::string ca_file, ca_path, client_cert, client_key, tls_server_name;
  bool skip_verify = false;
};

// `get`: the value of an environment variable, "" when it is not set. InvalidArgument names the
// variable.
absl::StatusOr<Endpoint> EndpointFromEnvironment(
    const std::function<std::string(const char*)>& get);

}  // namespace jenkins_agent::nomad
