#include "driver/image/reference.h"

#include <algorithm>

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

constexpr size_t kMaxTagBytes = 128;
constexpr size_t kMaxHostBytes = 255;
constexpr size_t kMaxNameBytes = 1024;  // of the whole
constexpr char kDockerHub[] = "docker.io";

bool IsNameChar(char c) { return absl::ascii_islower(c) || absl::ascii_isdigit(c); }

// One part of a repository: [a-z0-9]+ joined by '.', '_', "__" or any number of '-'.
bool IsRepositoryPart(absl::string_view part) {
  if (part.empty() || !IsNameChar(part.front()) || !IsNameChar(part.back())) return false;
  for (size_t i = 0; i < part.size();) {
    if (IsNameChar(part[i])) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < part.size() && part[end] == part[i]) ++end;
    const size_t length = end - i;
    const bool fits =
        part[i] == '-' || (part[i] == '.' && length == 1) || (part[i] == '_' && length <= 2);
    if (!fits || !IsNameChar(part[end])) return false;
    i = end;
  }
  return true;
}

bool IsTag(absl::string_view tag) {
  const auto is_word = [](char c) { return absl::ascii_isalnum(c) || c == '_'; };
  return !tag.empty() && tag.size() <= kMaxTagBytes && is_word(tag[0]) &&
         std::all_of(tag.begin(), tag.end(),
                     [&](char c) { return is_word(c) || c == '.' || c == '-'; });
}

bool IsPort(absl::string_view text) {
  int port = 0;
  return !text.empty() && absl::ascii_isdigit(text[0]) && absl::SimpleAtoi(text, &port) &&
         port > 0 && port <= 65535;
}

bool IsDomain(absl::string_view domain) {
  if (domain.empty()) return false;
  for (const absl::string_view label : absl::StrSplit(domain, '.')) {
    if (label.empty() || !absl::ascii_isalnum(label.front()) ||
        !absl::ascii_isalnum(label.back()) || !std::all_of(label.begin(), label.end(), [](char c) {
          return absl::ascii_isalnum(c) || c == '-';
        })) {
      return false;
    }
  }
  return true;
}

bool IsHost(absl::string_view host) {
  if (host.size() > kMaxHostBytes) return false;
  if (absl::ConsumePrefix(&host, "[")) {
    const size_t end = host.find(']');
    if (end == absl::string_view::npos || end == 0) return false;
    const absl::string_view address = host.substr(0, end);
    host.remove_prefix(end + 1);
    return std::all_of(address.begin(), address.end(),
                       [](char c) { return absl::ascii_isxdigit(c) || c == ':' || c == '.'; }) &&
           (host.empty() || (absl::ConsumePrefix(&host, ":") && IsPort(host)));
  }
  const size_t colon = host.find(':');
  if (colon == absl::string_view::npos) return IsDomain(host);
  return IsDomain(host.substr(0, colon)) && IsPort(host.substr(colon + 1));
}

bool LooksLikeHost(absl::string_view part) {
  return part == "localhost" || absl::StrContains(part, '.') || absl::StrContains(part, ':');
}

absl::Status Wrong(absl::string_view part, absl::string_view what, absl::string_view rule) {
  return absl::InvalidArgumentError(
      absl::StrCat("its ", part, " '", absl::CHexEscape(what), "' is not ", rule));
}

// Takes "@sha256:..." off the end of `name`.
absl::Status TakeDigest(absl::string_view& name, Reference& reference) {
  const size_t at = name.find('@');
  if (at == absl::string_view::npos) return absl::OkStatus();
  ASSIGN_OR_RETURN(reference.digest, Digest::Parse(name.substr(at + 1)));
  name = name.substr(0, at);
  return absl::OkStatus();
}

// Takes "host/" off the beginning of `name`.
absl::Status TakeHost(absl::string_view& name, Reference& reference) {
  reference.host = kDockerHub;
  const size_t slash = name.find('/');
  if (slash == absl::string_view::npos) return absl::OkStatus();
  const absl::string_view first = name.substr(0, slash);
  if (!LooksLikeHost(first)) return absl::OkStatus();
  if (!IsHost(first)) return Wrong("host", first, "a host name or address, with or without port");
  reference.host = absl::AsciiStrToLower(first);
  if (reference.host == "index.docker.io") reference.host = kDockerHub;
  name.remove_prefix(slash + 1);
  return absl::OkStatus();
}

absl::Status TakeTag(absl::string_view& name, Reference& reference) {
  const size_t colon = name.find(':');
  absl::string_view tag = "latest";
  if (colon != absl::string_view::npos) {
    tag = name.substr(colon + 1);
    name = name.substr(0, colon);
  }
  if (!IsTag(tag)) return Wrong("tag", tag, "letters, digits, '_', '.' and '-', at most 128");
  // The digest alone decides; the tag beside it is a remark.
  if (reference.digest.empty()) reference.tag = std::string(tag);
  return absl::OkStatus();
}

absl::Status TakeRepository(absl::string_view name, Reference& reference) {
  const bool short_name = reference.host == kDockerHub && !absl::StrContains(name, '/');
  reference.repository = short_name ? absl::StrCat("library/", name) : std::string(name);
  if (reference.repository.size() > kMaxRepositoryBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("its repository is longer than ", kMaxRepositoryBytes, " bytes"));
  }
  for (const absl::string_view part : absl::StrSplit(name, '/')) {
    if (!IsRepositoryPart(part)) {
      return Wrong("repository", name, "lower-case letters and digits with single '.', '_' or '-'");
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string Reference::ToString() const {
  return absl::StrCat(host, "/", repository, digest.empty() ? ":" : "@", Target());
}

absl::StatusOr<Reference> ParseReference(absl::string_view name) {
  if (name.size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("an image's name has at most ", kMaxNameBytes, " bytes"));
  }
  const std::string context = absl::StrCat("image '", absl::CHexEscape(name), "'");
  // Nomad's docker driver takes a url too.
  if (!absl::ConsumePrefix(&name, "docker://")) absl::ConsumePrefix(&name, "https://");
  Reference reference;
  RETURN_IF_ERROR(TakeDigest(name, reference), context);
  RETURN_IF_ERROR(TakeHost(name, reference), context);
  RETURN_IF_ERROR(TakeTag(name, reference), context);
  RETURN_IF_ERROR(TakeRepository(name, reference), context);
  return reference;
}

std::string ApiHost(absl::string_view host) {
  return host == kDockerHub ? "registry-1.docker.io" : std::string(host);
}

}  // namespace jenkins_agent
