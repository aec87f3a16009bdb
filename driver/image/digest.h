// Digests of image content. Only sha256: it is what every registry and builder writes.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace jenkins_agent {

// A checked digest: its text is safe in a path or a url. Default-constructed: none.
class Digest {
 public:
  Digest() = default;
  // "sha256:<64 lower-case hex digits>"; InvalidArgument for everything else.
  static absl::StatusOr<Digest> Parse(absl::string_view text);
  static Digest Of(absl::string_view content);

  bool empty() const { return hex_.empty(); }
  const std::string& hex() const { return hex_; }
  std::string ToString() const { return "sha256:" + hex_; }
  // As people are told: the first 12 digits.
  std::string Short() const { return hex_.substr(0, 12); }
  bool operator==(const Digest&) const = default;
  auto operator<=>(const Digest&) const = default;

 private:
  friend class Sha256;
  std::string hex_;
};

// SHA-256 of a stream. One thread at a time.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void Add(absl::string_view piece);
  // Of all pieces; nothing may be added afterwards.
  Digest Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace jenkins_agent
