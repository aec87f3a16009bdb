// Who we are at a registry: docker's config.json, which podman's auth.json resembles.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace jenkins_agent {

// Never logged, never in a message.
struct Credentials {
  std::string user;
  std::string password;
  std::string identity_token;  // instead of the two: for an OAuth2 refresh
};

struct CredentialSource {
  std::optional<Credentials> credentials;
  std::string helper;  // the suffix of a docker-credential-* program to ask instead
};

// What the file says about an image: credHelpers, then credsStore, then auths, whose longest key
// that fits (host, then host and parts of the path) wins. Errors do not quote the file.
absl::StatusOr<CredentialSource> FindCredentials(absl::string_view config, const std::string& host,
                                                 const std::string& repository);

// Asks docker-credential-<helper>, at most 10 s. None: it knows none.
absl::StatusOr<std::optional<Credentials>> AskCredentialHelper(const std::string& helper,
                                                               const std::string& host);

}  // namespace jenkins_agent
