// Images of a registry: OCI distribution-spec 1.1 and docker's Registry HTTP API v2 with its token
// authentication.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "driver/image/credentials.h"
#include "driver/image/reference.h"
#include "driver/image/source.h"

namespace jenkins_agent {

inline constexpr int kMaxRegistryRedirects = 5;
inline constexpr int kMaxTriesWithoutProgress = 4;

struct RegistryOptions {
  bool plain_http = false;           // no TLS at this registry
  std::string ca_file;               // PEM; empty: the system's certificates
  std::vector<std::string> mirrors;  // "https://host[:port]": asked first, for content by digest
  std::optional<Credentials> credentials;
};

// Credentials go to the registry and to the token server that it names, never to a mirror or to
// where a redirect leads. What fails on the way is tried again, with pauses, from the byte where it
// broke off. Errors: NotFound, PermissionDenied, Unauthenticated (all three the server's last
// word), Unavailable (trying later may help), each with the host and what it said.
std::unique_ptr<ImageSource> MakeRegistrySource(const Reference& reference,
                                                const RegistryOptions& options);

}  // namespace jenkins_agent
