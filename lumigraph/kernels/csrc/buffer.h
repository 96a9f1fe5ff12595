// Memory that kernels reuse between calls.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <new>

namespace lumi {

// Grows, never shrinks, never initialises. Aligned to a cache line.
template <class T> class Buffer {
  public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    ~Buffer() { std::free(data_); }
    T* reserve(size_t n) {
        if (n > capacity_) {
            std::free(data_);
            capacity_ = n + n / 4;
            data_ = static_cast<T*>(std::aligned_alloc(64, (capacity_ * sizeof(T) + 63) / 64 * 64));
            if (!data_) {
                capacity_ = 0;
                throw std::bad_alloc();
            }
        }
        return data_;
    }
    T* data() const { return data_; }
    T& operator[](size_t i) const { return data_[i]; }

  private:
    T* data_ = nullptr;
    size_t capacity_ = 0;
};

}  // namespace lumi
