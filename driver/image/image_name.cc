#include "driver/image/image_name.h"

#include <array>
#include <filesystem>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr size_t kMaxNameBytes = 4096;

struct Prefix {
  absl::string_view text;
  Transport transport;
};
constexpr std::array<Prefix, 4> kPrefixes = {{{"oci:", Transport::kLayout},
                                              {"oci-archive:", Transport::kLayoutArchive},
                                              {"docker-archive:", Transport::kDockerArchive},
                                              {"rootfs:", Transport::kRootfs}}};

absl::StatusOr<ImageName> ParseLocal(absl::string_view rest, Transport transport,
                                     const std::string& directory) {
  ImageName name;
  name.transport = transport;
  const size_t colon = transport == Transport::kRootfs ? absl::string_view::npos : rest.find(':');
  const absl::string_view path = rest.substr(0, colon);
  if (path.empty()) return absl::InvalidArgumentError("has no path");
  if (path.find('\0') != absl::string_view::npos) {
    return absl::InvalidArgumentError("its path holds a NUL");
  }
  const std::filesystem::path normal =
      (std::filesystem::path(directory) / std::string(path)).lexically_normal();
  name.path = normal.string();
  // libstdc++ leaves a path of slashes alone as it is.
  if (name.path.find_first_not_of('/') == std::string::npos) name.path = std::string("/");
  if (name.path.size() > 1) name.path = std::string(absl::StripSuffix(name.path, "/"));
  if (colon != absl::string_view::npos) name.part = std::string(rest.substr(colon + 1));
  return name;
}

}  // namespace

std::string ImageName::ToString() const {
  for (const Prefix& prefix : kPrefixes) {
    if (prefix.transport != transport) continue;
    return absl::StrCat(prefix.text, path, part.empty() ? "" : ":", part);
  }
  return reference.ToString();
}

absl::StatusOr<ImageName> ParseImageName(absl::string_view name, const std::string& directory) {
  if (name.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("an image's name has at most ", kMaxNameBytes, " bytes"));
  }
  for (const Prefix& prefix : kPrefixes) {
    if (!absl::StartsWith(name, prefix.text)) continue;
    absl::StatusOr<ImageName> local =
        ParseLocal(name.substr(prefix.text.size()), prefix.transport, directory);
    return local.ok() ? std::move(local)
                      : absl::StatusOr<ImageName>(Annotate(
                            local.status(), absl::StrCat("image '", absl::CHexEscape(name), "'")));
  }
  ImageName registry;
  ASSIGN_OR_RETURN(registry.reference, ParseReference(name));
  return registry;
}

}  // namespace jenkins_agent
