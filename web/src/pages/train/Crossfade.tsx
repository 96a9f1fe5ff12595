import { useState } from 'react';

/** An image that changes: the new one fades in over the old one once it is loaded. */
export function Crossfade({ src, alt, className = '' }: { src: string; alt: string; className?: string }) {
  const [below, setBelow] = useState(src);
  const [loaded, setLoaded] = useState('');
  return (
    <div role="img" aria-label={alt} className={`relative overflow-hidden ${className}`}>
      {[...new Set([below, src])].map((url) => (
        <img
          key={url}
          src={url}
          alt=""
          className={`absolute inset-0 size-full object-contain transition-opacity duration-700 ${url === below || url === loaded ? 'opacity-100' : 'opacity-0'}`}
          onLoad={() => setLoaded(url)}
          onTransitionEnd={() => setBelow(url)}
        />
      ))}
    </div>
  );
}
